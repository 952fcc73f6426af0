//! Execs of the engine: making them, finding them again, forgetting them.

use std::sync::Arc;
use std::time::Duration;

use rcd_runtime::{Exit, ProcessKey};
use rcd_sys::failpoint;

use crate::container::exec::{Exec, ExecSession};
use crate::container::lifecycle::{Admission, Request, admit};
use crate::container::start::exec_options;
use crate::engine::{Engine, Shared, now_ns};
use crate::error::{Error, Result, exit_code};
use crate::names::random_id;
use crate::tables::EXECS_MAX;
use crate::types::ExecRequest;

/// How long an ended exec can be asked for: a client whose connection broke comes back for its exit
/// code.
const ENDED_S_MAX: u64 = 60;

impl Engine {
    /// Runs a process in a running container. Returns its exec id.
    ///
    /// # Errors
    /// The container does not run; [`Error::ExecFailed`] with the exit code for `rc`.
    pub async fn exec(&self, request: ExecRequest) -> Result<String> {
        let container = self.find(&request.container)?;
        let view = container.view();
        if admit(view.phase, Request::Exec) != Admission::Accept {
            let id = container.name().to_owned();
            return Err(Error::NotRunning {
                id,
                state: view.phase.as_str(),
            });
        }
        let Some(program) = request.command.first().cloned() else {
            return Err(Error::invalid("command", "an exec needs a program"));
        };
        crate::create::check_process(&request.env, request.working_dir.as_deref())?;
        let id = random_id()?;
        let key = ProcessKey {
            container: container.id().to_owned(),
            exec: Some(id.clone()),
        };
        let exec = Exec::new(key);
        self.register(&id, &exec)?;
        let options = exec_options(&container.record, &id, &request);
        let made = match self.shared.runtime.exec(options).await {
            Ok(process) => {
                failpoint::reach("exec.spawned");
                exec.take_up(process.stdio)
            }
            Err(source) => Err(Error::ExecFailed {
                container: container.name().to_owned(),
                program,
                exit_code: exit_code(&source),
                source: Box::new(source),
            }),
        };
        if let Err(error) = made {
            self.shared.tables().execs.remove(&id);
            return Err(error);
        }
        if !request.attached {
            exec.read_unless_taken(&self.shared, Duration::ZERO);
        }
        Ok(id)
    }

    /// Attaches to an exec.
    ///
    /// # Errors
    /// No such exec; another client is attached.
    pub fn attach_exec(&self, id: &str) -> Result<ExecSession> {
        let exec = self.shared.tables().execs.get(id).cloned();
        let exec = exec.ok_or_else(|| Error::NoSuchExec { id: id.to_owned() })?;
        exec.attach(&self.shared)
    }

    fn register(&self, id: &str, exec: &Arc<Exec>) -> Result<()> {
        let mut tables = self.shared.tables();
        if tables.execs.len() >= EXECS_MAX {
            return Err(Error::Busy {
                what: "execs",
                max: EXECS_MAX,
            });
        }
        tables.execs.insert(id.to_owned(), Arc::clone(exec));
        Ok(())
    }
}

/// Publishes the end of an exec, and forgets it after a while.
pub(crate) fn ended(shared: &Arc<Shared>, key: ProcessKey, exit: Exit) {
    let id = key.exec.clone().unwrap_or_default();
    let exec = shared.tables().execs.get(&id).cloned();
    let later = Arc::clone(shared);
    shared.tasks.spawn(async move {
        if let Some(exec) = exec {
            failpoint::reach("exec.ended");
            exec.exit.send_replace(Some(exit));
            let patience = patience(exit.at_ns, now_ns());
            tokio::select! {
                () = later.shutdown.cancelled() => return,
                () = tokio::time::sleep(patience) => {}
            }
            later.tables().execs.remove(&id);
        }
        // Until here a successor would still find the exit code at the holder.
        later.runtime.acknowledge(key).await;
    });
}

/// How long an exec that ended then can still be asked for. It counts from the end, not from when
/// this daemon heard of it: under a daemon that dies again and again, the holder would keep them all.
fn patience(ended_at_ns: u64, now_ns: u64) -> Duration {
    let age = Duration::from_nanos(now_ns.saturating_sub(ended_at_ns));
    Duration::from_secs(ENDED_S_MAX).saturating_sub(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_exec_is_kept_from_its_end_on() {
        const S: u64 = 1_000_000_000;
        for (ended, now, want) in [(100, 100, 60), (100, 130, 30), (100, 160, 0), (100, 900, 0)] {
            assert_eq!(patience(ended * S, now * S), Duration::from_secs(want));
        }
        // The clock was set back.
        assert_eq!(patience(100 * S, 10 * S), Duration::from_secs(60));
    }
}
