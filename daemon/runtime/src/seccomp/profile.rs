//! Docker's default seccomp profile, as rules of the runtime spec.
//!
//! What it allows is Docker's (github.com/moby/profiles, `seccomp/default.json`), for the fourteen
//! capabilities that a container has by default, and for the kernels that rcd runs on. In short:
//! - everything else that a kernel knows gets EPERM, what it may learn one day ENOSYS;
//! - no new namespaces: `clone` without their flags, `clone3` (whose flags a filter cannot see) as
//!   if it did not exist, so that C libraries fall back on `clone`;
//! - sockets of the usual families, not AF_ALG or AF_VSOCK, which reach past network namespaces.
//!   32-bit programs may make theirs by `socketcall`, whose arguments a filter cannot see;
//! - personalities that do not weaken the memory layout;
//! - `chroot`, because of CAP_SYS_CHROOT, and `ptrace`, harmless to filters since Linux 4.8.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::arch::Machine;

/// The flags of clone(2) that make namespaces: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID,
/// NEWNET. (NEWTIME is no flag of clone, only of clone3.)
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Socket families below this are all allowed: from AF_UNSPEC to AF_APPLETALK .. AF_ROSE.
const FAMILIES_BELOW: u64 = 12;

/// The others that are allowed (linux/socket.h).
const FAMILIES: &[u64] = &[
    13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44,
    45,
];

/// PER_LINUX, PER_LINUX32, each also with UNAME26 (0x20000), and the query.
const PERSONALITIES: &[u64] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Allowed everywhere, whatever the arguments.
const ALWAYS: &str = "
_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir
chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range
creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32
fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd
getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32
getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall
mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync
munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause
pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll
ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv
process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead
readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages
removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile
sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid
setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid
setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget
shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat
stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee
tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat
uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
writev";

/// Allowed because a container has CAP_SYS_CHROOT.
const BY_CAPABILITY: &str = "chroot";

/// Allowed on x86_64 and its 32-bit companions only.
const X86: &str = "arch_prctl modify_ldt";

/// Allowed on arm and aarch64 only.
const ARM: &str =
    "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";

/// The profile for a machine.
pub(super) fn profile(machine: Machine) -> LinuxSeccomp {
    let own = match machine {
        Machine::X86_64 => X86,
        Machine::Aarch64 => ARM,
    };
    let names = [ALWAYS, BY_CAPABILITY, own]
        .into_iter()
        .flat_map(|list| list.split_whitespace());
    let mut syscalls = vec![rule(names, None)];
    let socket = |op, family| rule(["socket"], Some(argument(op, family, None)));
    syscalls.push(socket(LinuxSeccompOperator::ScmpCmpLt, FAMILIES_BELOW));
    syscalls.extend(
        FAMILIES
            .iter()
            .map(|f| socket(LinuxSeccompOperator::ScmpCmpEq, *f)),
    );
    syscalls.extend(PERSONALITIES.iter().map(|persona| {
        rule(
            ["personality"],
            Some(argument(LinuxSeccompOperator::ScmpCmpEq, *persona, None)),
        )
    }));
    let no_namespace = argument(
        LinuxSeccompOperator::ScmpCmpMaskedEq,
        CLONE_NAMESPACES,
        Some(0),
    );
    syscalls.push(rule(["clone"], Some(no_namespace)));
    let mut clone3 = rule(["clone3"], None);
    clone3.set_action(LinuxSeccompAction::ScmpActErrno);
    clone3.set_errno_ret(Some(nix::libc::ENOSYS.cast_unsigned()));
    syscalls.push(clone3);
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(LinuxSeccompAction::ScmpActErrno);
    profile.set_default_errno_ret(Some(nix::libc::EPERM.cast_unsigned()));
    profile.set_architectures(Some(machine.architectures()));
    profile.set_syscalls(Some(syscalls));
    profile
}

/// A rule that allows.
fn rule<'a>(
    names: impl IntoIterator<Item = &'a str>,
    argument: Option<LinuxSeccompArg>,
) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.into_iter().map(str::to_owned).collect());
    rule.set_action(LinuxSeccompAction::ScmpActAllow);
    rule.set_args(argument.map(|argument| vec![argument]));
    rule
}

/// A condition on the first argument.
#[expect(
    clippy::expect_used,
    reason = "every field of this builder has a default"
)]
fn argument(op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let mut builder = LinuxSeccompArgBuilder::default()
        .index(0usize)
        .op(op)
        .value(value);
    if let Some(value_two) = value_two {
        builder = builder.value_two(value_two);
    }
    builder.build().expect("no field is missing")
}
