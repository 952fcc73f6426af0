//! The system call interfaces ("ABIs") of a machine, and the numbers of their system calls.
//!
//! A 64-bit kernel serves several: an x86_64 one also takes i386 calls (another `arch` in
//! `struct seccomp_data`) and x32 calls (the same `arch`, bit 30 set in the number).
//!
//! Numbers come from crate `syscalls`, plus those that it lacks. x32 has no table there and needs
//! none: without bit 30 its numbers are those of x86_64, except 512 to 547. Where one side lacks a
//! number the kernel itself answers ENOSYS, so one table serves both
//! (arch/x86/entry/syscalls/syscall_64.tbl).

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use oci_spec::runtime::Arch;

/// Bit of a system call's number that tells x32 from x86_64 (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// A family of processors with the interfaces that its kernel serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "one of the two is foreign to each build")
)]
pub(super) enum Machine {
    /// x86_64, with i386 and x32.
    X86_64,
    /// aarch64, with 32-bit arm.
    Aarch64,
}

impl Machine {
    /// The machine that this is built for.
    #[cfg(target_arch = "x86_64")]
    pub(super) const NATIVE: Self = Self::X86_64;
    /// The machine that this is built for.
    #[cfg(target_arch = "aarch64")]
    pub(super) const NATIVE: Self = Self::Aarch64;

    /// Its interface for 64-bit programs.
    pub(super) fn abi64(self) -> Abi {
        match self {
            Self::X86_64 => Abi::X86_64,
            Self::Aarch64 => Abi::Aarch64,
        }
    }

    /// Its interface for 32-bit programs, and that one's name in the runtime spec.
    pub(super) fn abi32(self) -> (Abi, Arch) {
        match self {
            Self::X86_64 => (Abi::I386, Arch::ScmpArchX86),
            Self::Aarch64 => (Abi::Arm, Arch::ScmpArchArm),
        }
    }

    /// All that it runs, by the names of the runtime spec.
    pub(super) fn architectures(self) -> Vec<Arch> {
        match self {
            Self::X86_64 => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
            Self::Aarch64 => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        }
    }
}

/// One system call interface; x32 is part of [`Abi::X86_64`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abi {
    /// x86_64, and x32 after its bit is taken off.
    X86_64,
    /// i386.
    I386,
    /// aarch64.
    Aarch64,
    /// 32-bit arm, EABI.
    Arm,
}

impl Abi {
    /// `seccomp_data.arch` of its calls (`AUDIT_ARCH_*`, linux/audit.h).
    pub(super) fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 64 bits. The kernel extends those of 32-bit programs with zeros.
    pub(super) fn is_64_bit(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    /// Its table.
    pub(super) fn table(self) -> &'static Table {
        static TABLES: [OnceLock<Table>; 4] = [const { OnceLock::new() }; 4];
        TABLES[self as usize].get_or_init(|| Table::build(self))
    }
}

/// Names and numbers of an interface's system calls.
#[derive(Debug)]
pub(super) struct Table {
    /// Numbers by name; x32 gives some names two.
    by_name: HashMap<&'static str, Vec<u32>>,
    /// All numbers that have a name.
    pub(super) numbers: BTreeSet<u32>,
}

impl Table {
    fn build(abi: Abi) -> Self {
        let mut table = Self {
            by_name: HashMap::new(),
            numbers: BTreeSet::new(),
        };
        macro_rules! add_all {
            ($module:ident) => {
                for call in syscalls::$module::Sysno::iter() {
                    table.add(call.name(), call.id().cast_unsigned());
                }
            };
        }
        match abi {
            Abi::X86_64 => add_all!(x86_64),
            Abi::I386 => add_all!(x86),
            Abi::Aarch64 => add_all!(aarch64),
            Abi::Arm => add_all!(arm),
        }
        for &(name, number) in supplement(abi) {
            table.add(name, number);
        }
        table
    }

    fn add(&mut self, name: &'static str, number: u32) {
        let numbers = self.by_name.entry(name).or_default();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
        self.numbers.insert(number);
    }

    /// The numbers of a call; none if this interface has no such call.
    pub(super) fn numbers_of(&self, name: &str) -> &[u32] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }
}

/// Numbers that crate `syscalls` lacks, and names by which profiles know numbers that it has.
fn supplement(abi: Abi) -> &'static [(&'static str, u32)] {
    match abi {
        Abi::X86_64 => X32,
        Abi::I386 => &[("break", 17)],
        Abi::Aarch64 => &[("newfstatat", 79)],
        Abi::Arm => ARM,
    }
}

/// The calls private to arm (arch/arm/include/uapi/asm/unistd.h), and a second name.
const ARM: &[(&str, u32)] = &[
    ("sync_file_range2", 341),
    ("breakpoint", 0x000f_0001),
    ("cacheflush", 0x000f_0002),
    ("usr26", 0x000f_0003),
    ("usr32", 0x000f_0004),
    ("set_tls", 0x000f_0005),
    ("get_tls", 0x000f_0006),
];

/// The calls that x32 has under numbers of its own, without its bit.
const X32: &[(&str, u32)] = &[
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
];
