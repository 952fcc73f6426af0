//! A client attached to a container: output from its log, input to its terminal or pipe.

use std::sync::Arc;

use tokio::sync::watch;

use super::Container;
use super::log::{Position, Reader, Stream};
use crate::engine::Shared;
use crate::error::{Error, Result};
use crate::types::{Output, View};

/// A session. Dropping it detaches; the container does not notice.
#[derive(Debug)]
pub struct AttachSession {
    shared: Arc<Shared>,
    container: Arc<Container>,
    reader: Reader,
    begins_at: (u64, u64),
    view: watch::Receiver<View>,
    run: u64,
}

impl AttachSession {
    /// Opens a session at `position` in the log. `run` is what it ends with.
    pub(crate) async fn open(
        shared: Arc<Shared>,
        container: Arc<Container>,
        position: Option<Position>,
    ) -> Result<AttachSession> {
        let reader = match position {
            None => Reader::of_new_log(Arc::clone(&container.log)),
            Some(position) => Reader::new(Arc::clone(&container.log), position)
                .await
                .map_err(Error::io(format!(
                    "read the log of container {}",
                    container.name()
                )))?,
        };
        let view = container.watch();
        let run = view.borrow().run;
        let begins_at = reader.offsets();
        Ok(AttachSession {
            shared,
            container,
            reader,
            begins_at,
            view,
            run,
        })
    }

    /// Ends with the run that is under way now rather than with the one at opening.
    pub(crate) fn follow_present_run(&mut self) {
        self.run = self.view.borrow().run;
    }

    /// Full id of the container.
    pub fn id(&self) -> &str {
        self.container.id()
    }

    /// Whether it has a terminal.
    pub fn tty(&self) -> bool {
        self.container.record.config.tty
    }

    /// Offsets in stdout and stderr at which the session began.
    pub fn begins_at(&self) -> (u64, u64) {
        self.begins_at
    }

    /// The next output, or the end. Cancel safe.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn next(&mut self) -> Result<Output> {
        let read = self.reader.next(true).await;
        match read.map_err(Error::io(format!(
            "read the log of {}",
            self.container.name()
        )))? {
            Some(chunk) if chunk.stream == Stream::Stdout => Ok(Output::Stdout(chunk.bytes)),
            Some(chunk) => Ok(Output::Stderr(chunk.bytes)),
            None => Ok(self.ended().await),
        }
    }

    /// Waits for the end of the run; output is over by then.
    async fn ended(&mut self) -> Output {
        let run = self.run;
        let over = |view: &View| view.run != run || !view.phase.is_live();
        let Ok(view) = self.view.wait_for(over).await.map(|view| view.clone()) else {
            return Output::Lost("the container is gone".to_owned());
        };
        match (view.exit_code, view.error) {
            (Some(code), _) => Output::Exit(code),
            (None, Some(error)) => Output::Lost(error),
            (None, None) => Output::Lost("nobody saw how the container ended".to_owned()),
        }
    }

    /// A handle for input, to be used beside `next`.
    pub fn input(&self) -> Input {
        let (shared, container) = (Arc::clone(&self.shared), Arc::clone(&self.container));
        Input {
            shared,
            target: Target::Container(container),
        }
    }
}

/// Input and terminal size of a session.
#[derive(Debug, Clone)]
pub struct Input {
    pub(crate) shared: Arc<Shared>,
    pub(crate) target: Target,
}

/// Whose input.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A container's present run.
    Container(Arc<Container>),
    /// An exec.
    Exec(Arc<super::io::Io>),
}

impl Input {
    fn io(&self) -> Option<Arc<super::io::Io>> {
        match &self.target {
            Target::Container(container) => container.io(),
            Target::Exec(io) => Some(Arc::clone(io)),
        }
    }

    /// Writes all of `bytes`, waiting while the process does not read. Input for a process that has
    /// none is dropped.
    ///
    /// # Errors
    /// The pipe or terminal fails.
    pub async fn write(&self, bytes: &[u8]) -> Result<()> {
        match self.io() {
            Some(io) => io.write(bytes).await,
            None => Ok(()),
        }
    }

    /// Ends the input.
    pub async fn close(&self) {
        if let Some(io) = self.io() {
            io.close(&*self.shared.runtime).await;
        }
    }

    /// Sets the terminal's size in rows and columns; nothing without a terminal.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        match self.io() {
            Some(io) => io.resize(rows, columns),
            None => Ok(()),
        }
    }
}
