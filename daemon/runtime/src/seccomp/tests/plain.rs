//! What the compiler is compared with: an interpreter of classic BPF, and a plain reading of a
//! profile.

use std::collections::HashMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::super::arch::{Abi, Machine, X32_BIT};
use super::super::bpf::{self, INSTRUCTION_BYTES};
use super::super::policy::{ENOSYS, SECCOMP_RET_KILL_PROCESS, filter_value};

/// `struct seccomp_data` without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) arguments: [u64; 6],
}

fn word(call: &Call, offset: u32) -> u32 {
    let argument = |offset: u32| call.arguments[(offset as usize - 16) / 8];
    match offset {
        bpf::OFFSET_NUMBER => call.number,
        bpf::OFFSET_ARCH => call.arch,
        16.. if offset.is_multiple_of(8) => argument(offset) as u32,
        16.. if offset.is_multiple_of(4) => (argument(offset) >> 32) as u32,
        _ => panic!("load from {offset}"),
    }
}

/// Runs a filter as the kernel would, and counts its steps.
pub(super) fn run(filter: &[u8], call: &Call) -> (u32, usize) {
    let (instructions, rest) = filter.as_chunks::<INSTRUCTION_BYTES>();
    assert!(rest.is_empty());
    let (mut pc, mut a, mut steps) = (0, 0, 0);
    loop {
        let [c0, c1, yes, no, k @ ..] = instructions[pc];
        let k = u32::from_ne_bytes(k);
        let jump = |holds: bool| usize::from(if holds { yes } else { no });
        pc += 1;
        steps += 1;
        match u16::from_ne_bytes([c0, c1]) {
            bpf::LOAD => a = word(call, k),
            bpf::AND => a &= k,
            bpf::JUMP => pc += k as usize,
            bpf::IF_EQUAL => pc += jump(a == k),
            bpf::IF_GREATER => pc += jump(a > k),
            bpf::IF_AT_LEAST => pc += jump(a >= k),
            bpf::RETURN => return (k, steps),
            code => panic!("instruction {code:#x}"),
        }
    }
}

/// A profile in its own words, without intervals or halves.
pub(super) struct Plain<'a> {
    profile: &'a LinuxSeccomp,
    machine: Machine,
    /// The entries about each number of an interface, in the profile's order.
    entries: HashMap<(u32, u32), Vec<&'a LinuxSyscall>>,
}

impl<'a> Plain<'a> {
    pub(super) fn new(profile: &'a LinuxSeccomp, machine: Machine) -> Self {
        let mut entries: HashMap<(u32, u32), Vec<&LinuxSyscall>> = HashMap::new();
        for abi in [machine.abi64(), machine.abi32().0] {
            for entry in profile.syscalls().iter().flatten() {
                for name in entry.names() {
                    for number in abi.table().numbers_of(name) {
                        entries
                            .entry((abi.audit_arch(), *number))
                            .or_default()
                            .push(entry);
                    }
                }
            }
        }
        Self {
            profile,
            machine,
            entries,
        }
    }

    /// What becomes of a call.
    pub(super) fn outcome(&self, call: &Call) -> u32 {
        let (profile, machine) = (self.profile, self.machine);
        let has = |arch| profile.architectures().iter().flatten().any(|a| *a == arch);
        let (abi32, name32) = machine.abi32();
        let abi = if call.arch == machine.abi64().audit_arch() {
            machine.abi64()
        } else if call.arch == abi32.audit_arch() && has(name32) {
            abi32
        } else {
            return SECCOMP_RET_KILL_PROCESS;
        };
        let mut number = call.number;
        if abi == Abi::X86_64 {
            if has(Arch::ScmpArchX32) {
                number &= !X32_BIT;
            } else if number >= X32_BIT {
                return ENOSYS;
            }
        }
        let default =
            filter_value(profile.default_action(), profile.default_errno_ret(), "").unwrap();
        if !abi.table().numbers.contains(&number) {
            let permissive = matches!(
                profile.default_action(),
                LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog
            );
            return if permissive { default } else { ENOSYS };
        }
        let entries = self
            .entries
            .get(&(abi.audit_arch(), number))
            .map_or(&[][..], Vec::as_slice);
        let arguments = |entry: &&&'a LinuxSyscall| entry.args().as_deref().unwrap_or_default();
        let conditional = entries
            .iter()
            .find(|entry| !arguments(entry).is_empty() && entry_holds(arguments(entry), call, abi));
        let plain = || entries.iter().find(|entry| arguments(entry).is_empty());
        conditional.or_else(plain).map_or(default, |entry| {
            filter_value(entry.action(), entry.errno_ret(), "").unwrap()
        })
    }
}

fn entry_holds(arguments: &[LinuxSeccompArg], call: &Call, abi: Abi) -> bool {
    let mut indices: Vec<usize> = arguments.iter().map(LinuxSeccompArg::index).collect();
    indices.sort_unstable();
    indices.dedup();
    let mut results = arguments
        .iter()
        .map(|argument| argument_holds(argument, call, abi));
    if indices.len() == arguments.len() {
        results.all(|r| r)
    } else {
        results.any(|r| r)
    }
}

fn argument_holds(argument: &LinuxSeccompArg, call: &Call, abi: Abi) -> bool {
    let cut = |value: u64| {
        if abi.is_64_bit() {
            value
        } else {
            u64::from(value as u32)
        }
    };
    let (actual, value) = (cut(call.arguments[argument.index()]), cut(argument.value()));
    match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => actual != value,
        LinuxSeccompOperator::ScmpCmpLt => actual < value,
        LinuxSeccompOperator::ScmpCmpLe => actual <= value,
        LinuxSeccompOperator::ScmpCmpEq => actual == value,
        LinuxSeccompOperator::ScmpCmpGe => actual >= value,
        LinuxSeccompOperator::ScmpCmpGt => actual > value,
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            actual & value == cut(argument.value_two().unwrap_or(0))
        }
    }
}
