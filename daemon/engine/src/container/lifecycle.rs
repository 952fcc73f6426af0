//! Lifecycle of a container: its phases, and which request is legal in which.
//!
//! ```text
//!            start            exec succeeded         stop
//!  Created ─────────► Starting ────────────► Running ────► Stopping
//!     │                  │ failed               │ init ended   │ init ended
//!     │ remove           ▼                      ▼              │
//!     │               Exited ◄──────────────────┴──────────────┘
//!     │                  │ ▲ start leads back to Starting
//!     ▼     remove       ▼
//!   Removing ◄───────────┘
//! ```
//!
//! [`admit`] is pure: it looks at a phase and a request and says what is to be done. The driver
//! (`driver.rs`) is the only writer of a phase and the only caller of `admit`; it is never asked
//! while `Starting`, because a start is one step of its loop, but answers sensibly all the same.

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Made, never started.
    Created,
    /// Its first process is being made.
    Starting,
    /// Its first process runs.
    Running,
    /// It was asked to stop and has not ended yet.
    Stopping,
    /// Its first process has ended, or its last start failed.
    Exited,
    /// It is being removed. Final.
    Removing,
}

impl Phase {
    /// The phase in a user's words, as in "the container is running".
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Created => "created",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Stopping => "stopping",
            Phase::Exited => "exited",
            Phase::Removing => "being removed",
        }
    }

    /// Whether a first process may exist.
    pub fn is_live(self) -> bool {
        matches!(self, Phase::Starting | Phase::Running | Phase::Stopping)
    }
}

/// A request that changes a container's phase or needs it to be in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Make its first process.
    Start,
    /// Ask it to end, then make it end.
    Stop,
    /// Send a signal.
    Kill,
    /// Forget it and delete its files.
    Remove {
        /// End it first if it lives.
        force: bool,
    },
    /// Run another process in it.
    Exec,
}

/// What to do about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Do it.
    Accept,
    /// It is so already: answer success at once.
    Already,
    /// It is under way: answer when that ends.
    Join,
    /// End the container first, then do it.
    EndFirst,
    /// It cannot be done in this phase.
    Refuse,
}

/// Decides about `request` for a container in `phase`.
pub(crate) fn admit(phase: Phase, request: Request) -> Admission {
    use Admission::{Accept, Already, EndFirst, Join, Refuse};
    match (request, phase) {
        (Request::Start, Phase::Created | Phase::Exited) => Accept,
        (Request::Start, Phase::Starting) => Join,
        (Request::Start, Phase::Running) => Already,
        (Request::Start, Phase::Stopping | Phase::Removing) => Refuse,

        (Request::Stop, Phase::Running) => Accept,
        (Request::Stop, Phase::Stopping) => Join,
        (Request::Stop, Phase::Created | Phase::Exited) => Already,
        (Request::Stop, Phase::Starting | Phase::Removing) => Refuse,

        (Request::Kill | Request::Exec, Phase::Running) => Accept,
        (Request::Kill, Phase::Stopping) => Accept,
        (Request::Kill | Request::Exec, _) => Refuse,

        (Request::Remove { .. }, Phase::Created | Phase::Exited) => Accept,
        (Request::Remove { .. }, Phase::Removing) => Join,
        (Request::Remove { force: true }, Phase::Running | Phase::Stopping) => EndFirst,
        (Request::Remove { .. }, Phase::Starting | Phase::Running | Phase::Stopping) => Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 6] = [
        Phase::Created,
        Phase::Starting,
        Phase::Running,
        Phase::Stopping,
        Phase::Exited,
        Phase::Removing,
    ];

    fn check(request: Request, expected: [Admission; 6]) {
        for (phase, want) in PHASES.into_iter().zip(expected) {
            assert_eq!(admit(phase, request), want, "{request:?} while {phase:?}");
        }
    }

    #[test]
    fn every_request_has_one_answer_in_every_phase() {
        use Admission::{Accept, Already, EndFirst, Join, Refuse};
        //                       Created  Starting Running   Stopping  Exited   Removing
        check(
            Request::Start,
            [Accept, Join, Already, Refuse, Accept, Refuse],
        );
        check(
            Request::Stop,
            [Already, Refuse, Accept, Join, Already, Refuse],
        );
        check(
            Request::Kill,
            [Refuse, Refuse, Accept, Accept, Refuse, Refuse],
        );
        check(
            Request::Exec,
            [Refuse, Refuse, Accept, Refuse, Refuse, Refuse],
        );
        check(
            Request::Remove { force: false },
            [Accept, Refuse, Refuse, Refuse, Accept, Join],
        );
        check(
            Request::Remove { force: true },
            [Accept, Refuse, EndFirst, EndFirst, Accept, Join],
        );
    }

    #[test]
    fn nothing_is_accepted_once_removing() {
        for request in [Request::Start, Request::Stop, Request::Kill, Request::Exec] {
            assert_eq!(admit(Phase::Removing, request), Admission::Refuse);
        }
    }
}
