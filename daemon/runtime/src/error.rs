//! What can go wrong between the daemon, its holder and a container's set-up.
//!
//! Each variant names the operation and its object. `Display` never prints the source: whoever
//! shows an error prints the chain.

use std::io;
use std::path::PathBuf;

use rcd_init::protocol::{Failure, ProcessKey, Step};

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens at the holder's socket.
    #[error("no holder answers at {}", path.display())]
    NoHolder {
        /// The socket.
        path: PathBuf,
        /// `ENOENT` or `ECONNREFUSED`.
        #[source]
        source: io::Error,
    },
    /// The socket exists and cannot be used.
    #[error("cannot connect to the holder at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The holder refused this daemon.
    #[error("the holder refused the connection: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// The two speak no common protocol.
    #[error("the holder speaks protocol {holder}, this daemon {oldest} to {newest}")]
    Version {
        /// What the holder offered.
        holder: u32,
        /// The oldest that this daemon speaks.
        oldest: u32,
        /// The newest.
        newest: u32,
    },
    /// A packet that the protocol does not allow.
    #[error("protocol error from the holder: {what}")]
    Protocol {
        /// What was wrong with it.
        what: String,
    },
    /// A message that cannot be put into a packet or taken out of one.
    #[error("protocol error: cannot {what}")]
    Wire {
        /// What was being done.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<rcd_init::Error>,
    },
    /// The holder's process was not found.
    #[error("cannot open a pidfd of the holder, process {pid}")]
    HolderProcess {
        /// Its pid.
        pid: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The holder's namespaces cannot be joined.
    #[error("cannot {what} the namespaces of the holder, process {pid}")]
    Join {
        /// The step.
        what: &'static str,
        /// The holder's pid.
        pid: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection to the holder is gone; its containers, if it still lives, are not.
    #[error("the connection to the holder is lost")]
    HolderGone,
    /// The kernel lets no more descriptors of this user be on their way through sockets than
    /// `RLIMIT_NOFILE` (`unix(7)`), and containers count, too. It passes as they are received.
    #[error(
        "cannot hand descriptors to the holder for {}: too many of this user are in transit, \
         perhaps a container's that fills sockets with them; try again, or stop that container",
        name(key)
    )]
    InTransit {
        /// Of which process.
        key: ProcessKey,
        /// `ETOOMANYREFS`.
        #[source]
        source: io::Error,
    },
    /// A process did not reach its program; nothing of it is left.
    #[error("{}", describe(failure))]
    Start {
        /// Which process.
        key: ProcessKey,
        /// The step that failed.
        failure: Box<Failure>,
        /// What a client exits with: 127 if the program was not found, 126 if it cannot be run
        /// or its working directory is missing, 125 for everything else.
        exit_code: i32,
    },
    /// A field of a runtime spec that this runtime does not have.
    #[error("{field} is not supported")]
    Unsupported {
        /// The field, by its path in the spec.
        field: String,
    },
    /// A field of a runtime spec with a value that cannot be used.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field, by its path in the spec.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A seccomp profile that cannot be compiled.
    #[error("linux.seccomp cannot be compiled")]
    Seccomp {
        /// Why.
        #[source]
        source: crate::seccomp::Error,
    },
    /// A container or exec id outside the protocol's form.
    #[error("`{id}` is not an id: 1 to 64 characters of 0-9 and a-z")]
    Id {
        /// The id.
        id: String,
    },
    /// A cgroup operation.
    #[error("cannot {what} the cgroup {}", path.display())]
    Cgroup {
        /// The operation.
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No network namespace could be made.
    #[error("cannot make a network namespace: {what}")]
    NetNs {
        /// The step.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Pipes or the plan's memfd.
    #[error("cannot make {what} for {}", name(key))]
    Prepare {
        /// What.
        what: &'static str,
        /// For which process.
        key: ProcessKey,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A plan larger than the protocol allows, or one that cannot be encoded.
    #[error("cannot encode the plan of {}: {reason}", name(key))]
    Plan {
        /// Of which process.
        key: ProcessKey,
        /// Why.
        reason: String,
    },
    /// The async runtime is shutting down, or its worker failed.
    #[error("the runtime is shutting down")]
    ShuttingDown,
    /// A file of `/proc` could not be read or understood.
    #[error("cannot read {}", path.display())]
    Proc {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread or the socket's registration with the async runtime.
    #[error("cannot {what}")]
    Setup {
        /// What was being done.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn start(key: ProcessKey, failure: Failure) -> Self {
        let exit_code = exit_code(&failure);
        Self::Start {
            key,
            failure: Box::new(failure),
            exit_code,
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            reason: reason.into(),
        }
    }

    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }
}

/// Docker's exit codes for a container that never ran (`docker run --help`, "Exit Status").
fn exit_code(failure: &Failure) -> i32 {
    match (failure.step, failure.errno) {
        (Step::Exec, errno) if errno == nix::libc::ENOENT => 127,
        (Step::Exec | Step::WorkingDirectory, _) => 126,
        _ => 125,
    }
}

/// How people name a process: its container, and the exec if it is one.
fn name(key: &ProcessKey) -> String {
    match &key.exec {
        Some(exec) => format!("exec {exec} in container {}", key.container),
        None => format!("container {}", key.container),
    }
}

fn describe(failure: &Failure) -> String {
    let step = match failure.step {
        Step::Admit => "the holder refused it",
        Step::Clone => "clone3",
        Step::Join => "joining namespaces",
        Step::Plan => "reading the plan",
        Step::Rootfs => "root file system",
        Step::Mount => "mount",
        Step::Device => "device",
        Step::Mask => "masking a path",
        Step::PivotRoot => "pivot_root",
        Step::Hostname => "host name",
        Step::Sysctl => "sysctl",
        Step::Terminal => "terminal",
        Step::User => "user",
        Step::Rlimit => "resource limit",
        Step::Capabilities => "capabilities",
        Step::Seccomp => "seccomp filter",
        Step::WorkingDirectory => "working directory",
        Step::Exec => "program",
    };
    let mut text = step.to_owned();
    if !failure.object.is_empty() {
        text.push_str(&format!(" `{}`", failure.object));
    }
    if !failure.detail.is_empty() {
        text.push_str(&format!(": {}", failure.detail));
    }
    if failure.errno != 0 {
        let errno = nix::errno::Errno::from_raw(failure.errno);
        text.push_str(&format!(": {} ({errno:?})", errno.desc().to_lowercase()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(step: Step, errno: i32) -> Failure {
        Failure {
            step,
            object: "nope".into(),
            errno,
            detail: String::new(),
        }
    }

    #[test]
    fn exit_codes_are_dockers() {
        let cases = [
            (Step::Exec, nix::libc::ENOENT, 127),
            (Step::Exec, nix::libc::EACCES, 126),
            (Step::Exec, nix::libc::ENOEXEC, 126),
            (Step::WorkingDirectory, nix::libc::ENOENT, 126),
            (Step::User, 0, 125),
            (Step::Mount, nix::libc::ENOENT, 125),
        ];
        for (step, errno, code) in cases {
            assert_eq!(exit_code(&failed(step, errno)), code, "{step:?} {errno}");
        }
    }

    #[test]
    fn a_failure_reads_as_one_sentence() {
        let key = ProcessKey {
            container: "c1".into(),
            exec: None,
        };
        let error = Error::start(key, failed(Step::Exec, nix::libc::ENOENT));
        assert_eq!(
            error.to_string(),
            "program `nope`: no such file or directory (ENOENT)"
        );
    }
}
