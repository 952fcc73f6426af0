//! What can be wrong with a seccomp profile.

/// Why a profile cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The action needs a tracer or a listening process, and rcd has neither.
    #[error(
        "seccomp action {action} is not supported: nothing would answer it \
         (supported: ALLOW, ERRNO, KILL, KILL_THREAD, KILL_PROCESS, TRAP, LOG)"
    )]
    Action {
        /// The action's name as in the runtime spec.
        action: String,
    },
    /// A filter flag or listener that would change what the filter does.
    #[error("seccomp setting {setting} is not supported")]
    Setting {
        /// The setting's name as in the runtime spec.
        setting: String,
    },
    /// An error number that the kernel would silently cut.
    #[error(
        "seccomp errno {value} for {subject} is above {}",
        super::policy::ERRNO_MAX
    )]
    Errno {
        /// What would return it: a system call's name or "default action".
        subject: String,
        /// The number asked for.
        value: u32,
    },
    /// A rule on an argument that system calls do not have.
    #[error("seccomp rule of {syscall} names argument {index}, system calls have arguments 0 to 5")]
    Argument {
        /// The system call's name.
        syscall: String,
        /// The index asked for.
        index: usize,
    },
    /// More instructions than the kernel takes.
    #[error(
        "seccomp profile needs {instructions} instructions, the kernel takes {}",
        super::bpf::INSTRUCTIONS_MAX
    )]
    TooLong {
        /// How many the profile compiles to.
        instructions: usize,
    },
}
