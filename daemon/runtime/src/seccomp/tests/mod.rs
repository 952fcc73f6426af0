//! The compiler against an interpreter of classic BPF and a plain reading of the profile.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::arch::{Abi, Machine, X32_BIT};
use super::bpf::INSTRUCTION_BYTES;
use super::compile::compile;
use super::policy::{ENOSYS, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO};
use super::*;

mod kernel;
mod plain;

use plain::{Call, Plain, run};

const EPERM: u32 = SECCOMP_RET_ERRNO | 1;

/// Values around everything that the profile compares with.
fn samples(profile: &LinuxSeccomp) -> Vec<u64> {
    let mut samples = vec![
        0,
        1,
        u64::MAX,
        u64::from(u32::MAX),
        1 << 32,
        40,
        0x0200_0000,
    ];
    for argument in profile
        .syscalls()
        .iter()
        .flatten()
        .flat_map(|s| s.args().iter().flatten())
    {
        for value in [argument.value(), argument.value_two().unwrap_or(0)] {
            samples.extend([value, value.wrapping_sub(1), value.wrapping_add(1)]);
            samples.extend([value ^ (1 << 32), value ^ (1 << 63), !value, value << 32]);
        }
    }
    samples.sort_unstable();
    samples.dedup();
    samples
}

/// A small generator of pseudo-random numbers (xorshift64*), so that a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Numbers that some rule with conditions is about, on either interface.
fn numbers_judged_by_arguments(profile: &LinuxSeccomp, machine: Machine) -> BTreeSet<u32> {
    let entries = profile.syscalls().iter().flatten();
    let judged = entries.filter(|entry| entry.args().as_ref().is_some_and(|a| !a.is_empty()));
    judged
        .flat_map(LinuxSyscall::names)
        .flat_map(|name| [machine.abi64(), machine.abi32().0].map(|a| a.table().numbers_of(name)))
        .flatten()
        .copied()
        .collect()
}

/// Compares filter and reference over all interesting numbers: every sample as first argument
/// where the profile looks at arguments, `rounds` argument vectors elsewhere.
fn check(profile: &LinuxSeccomp, machine: Machine, random: &mut Random, rounds: usize) {
    let filter = compile(profile, machine).unwrap();
    let samples = samples(profile);
    let arches = [
        machine.abi64().audit_arch(),
        machine.abi32().0.audit_arch(),
        0x8000_0016,
        0,
    ];
    let private = 0x000e_ffff..0x000f_0010;
    let special = [0x7fff_ffff, 0x8000_0000, u32::MAX, 0x4000_0000, 0x5555_5555];
    let numbers = (0..700)
        .chain(X32_BIT..X32_BIT + 700)
        .chain(private)
        .chain(special)
        .collect::<Vec<u32>>();
    let plain = Plain::new(profile, machine);
    let judged = numbers_judged_by_arguments(profile, machine);
    for arch in arches {
        for &number in &numbers {
            let all = judged.contains(&(number & !X32_BIT));
            for round in 0..if all {
                samples.len().max(rounds)
            } else {
                rounds
            } {
                let mut arguments = [0; 6];
                for (index, argument) in arguments.iter_mut().enumerate() {
                    *argument = match samples.get(round) {
                        Some(sample) if index == 0 => *sample,
                        _ => *random.pick(&samples),
                    };
                    if arch == machine.abi32().0.audit_arch() {
                        *argument &= u64::from(u32::MAX);
                    }
                }
                let call = Call {
                    number,
                    arch,
                    arguments,
                };
                let (actual, _) = run(&filter, &call);
                assert_eq!(actual, plain.outcome(&call), "{machine:?} {call:x?}");
            }
        }
    }
}

fn argument(index: usize, op: LinuxSeccompOperator, value: u64, two: u64) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(index).op(op);
    builder.value(value).value_two(two).build().unwrap()
}

const NAMES: &[&str] = &[
    "read",
    "write",
    "socket",
    "clone",
    "clone3",
    "ptrace",
    "waitid",
    "no_such_call",
    "openat",
    "personality",
    "mmap2",
    "ioctl",
    "close",
    "futex",
    "exit",
    "set_tls",
    "getdents64",
];
const ACTIONS: &[LinuxSeccompAction] = &[
    LinuxSeccompAction::ScmpActAllow,
    LinuxSeccompAction::ScmpActErrno,
    LinuxSeccompAction::ScmpActKill,
    LinuxSeccompAction::ScmpActKillProcess,
    LinuxSeccompAction::ScmpActTrap,
    LinuxSeccompAction::ScmpActLog,
];
const OPERATORS: &[LinuxSeccompOperator] = &[
    LinuxSeccompOperator::ScmpCmpNe,
    LinuxSeccompOperator::ScmpCmpLt,
    LinuxSeccompOperator::ScmpCmpLe,
    LinuxSeccompOperator::ScmpCmpEq,
    LinuxSeccompOperator::ScmpCmpEq,
    LinuxSeccompOperator::ScmpCmpGe,
    LinuxSeccompOperator::ScmpCmpGt,
    LinuxSeccompOperator::ScmpCmpMaskedEq,
];
const VALUES: &[u64] = &[
    0,
    1,
    5,
    6,
    7,
    0xffff_ffff,
    1 << 32,
    (1 << 32) + 5,
    0x7e02_0000,
    u64::MAX,
    1 << 63,
];

/// Random profiles over a few calls, so that rules meet.
fn random_profile(random: &mut Random) -> LinuxSeccomp {
    let mut entries = Vec::new();
    for _ in 0..random.below(40) {
        let mut entry = LinuxSyscall::default();
        let names = (0..=random.below(3))
            .map(|_| (*random.pick(NAMES)).to_owned())
            .collect();
        entry.set_names(names).set_action(*random.pick(ACTIONS));
        entry.set_errno_ret(Some(random.below(4096) as u32));
        let mut arguments = Vec::new();
        for _ in 0..random.below(4) {
            let (op, value) = (*random.pick(OPERATORS), *random.pick(VALUES));
            arguments.push(argument(random.below(3), op, value, *random.pick(VALUES)));
        }
        entry.set_args(Some(arguments));
        entries.push(entry);
    }
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(*random.pick(ACTIONS));
    profile.set_default_errno_ret(Some(random.below(200) as u32));
    let architectures = [Machine::X86_64, Machine::Aarch64]
        .map(Machine::architectures)
        .concat();
    profile.set_architectures(Some(
        architectures
            .into_iter()
            .filter(|_| random.below(2) == 0)
            .collect(),
    ));
    profile.set_syscalls(Some(entries));
    profile
}

#[test]
fn the_default_profile_means_what_it_says_on_every_interface() {
    let mut random = Random(42);
    for machine in [Machine::X86_64, Machine::Aarch64] {
        let profile = profile::profile(machine);
        check(&profile, machine, &mut random, 4);
    }
}

#[test]
fn random_profiles_mean_what_they_say() {
    let mut random = Random(7);
    for _ in 0..60 {
        let profile = random_profile(&mut random);
        check(&profile, Machine::X86_64, &mut random, 12);
        check(&profile, Machine::Aarch64, &mut random, 12);
    }
}

#[test]
fn far_targets_are_reached() {
    // Hundreds of distinct outcomes, each with a block of its own, push targets beyond 255.
    let mut entries = Vec::new();
    for (index, call) in syscalls::x86_64::Sysno::iter().enumerate().take(300) {
        let value = (index as u64) << 30;
        let argument = argument(index % 6, LinuxSeccompOperator::ScmpCmpGt, value, 0);
        let mut entry = LinuxSyscall::default();
        entry.set_names(vec![call.name().to_owned()]);
        entry
            .set_action(LinuxSeccompAction::ScmpActErrno)
            .set_errno_ret(Some(index as u32));
        entry.set_args(Some(vec![argument]));
        entries.push(entry);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActAllow)
        .set_syscalls(Some(entries));
    check(&profile, Machine::X86_64, &mut Random(3), 20);
}

#[test]
fn a_profile_longer_than_the_kernel_takes_is_refused() {
    let mut entries = Vec::new();
    for value in 0..2000 {
        let argument = argument(0, LinuxSeccompOperator::ScmpCmpNe, value << 31, 0);
        let mut entry = LinuxSyscall::default();
        entry
            .set_names(vec!["read".to_owned()])
            .set_action(LinuxSeccompAction::ScmpActErrno);
        entry.set_args(Some(vec![argument]));
        entries.push(entry);
    }
    let mut profile = LinuxSeccomp::default();
    profile.set_syscalls(Some(entries));
    let error = super::compile(&profile).unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLong {
                instructions: 4097..
            }
        ),
        "{error}"
    );
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    let compile = |change: fn(&mut LinuxSeccomp, &mut LinuxSyscall)| {
        let mut entry = LinuxSyscall::default();
        entry.set_names(vec!["read".to_owned()]);
        let mut profile = LinuxSeccomp::default();
        change(&mut profile, &mut entry);
        profile.set_syscalls(Some(vec![entry]));
        super::compile(&profile)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let check = |change, expected: &str| {
        let error = compile(change).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    };
    check(
        |_, e| _ = e.set_action(LinuxSeccompAction::ScmpActTrace),
        "seccomp action SCMP_ACT_TRACE is not supported",
    );
    check(
        |p, _| _ = p.set_default_action(LinuxSeccompAction::ScmpActNotify),
        "seccomp action SCMP_ACT_NOTIFY is not supported",
    );
    check(
        |_, e| {
            _ = e
                .set_action(LinuxSeccompAction::ScmpActErrno)
                .set_errno_ret(Some(4096))
        },
        "seccomp errno 4096 for read is above 4095",
    );
    check(
        |_, e| {
            let argument = argument(6, LinuxSeccompOperator::ScmpCmpEq, 0, 0);
            e.set_args(Some(vec![argument]));
        },
        "seccomp rule of read names argument 6",
    );
    check(
        |p, _| _ = p.set_listener_path(Some("/run/x".into())),
        "seccomp setting listenerPath is not supported",
    );
    check(
        |p, _| {
            let flag = oci_spec::runtime::LinuxSeccompFilterFlag::SeccompFilterFlagLog;
            p.set_flags(Some(vec![flag]));
        },
        "seccomp setting SECCOMP_FILTER_FLAG_LOG is not supported",
    );
    assert_eq!(
        compile(|_, e| _ = e.set_names(vec!["no_such_call".to_owned()])),
        Ok(())
    );
}

#[test]
fn the_default_filter_treats_known_cases_as_docker_does() {
    let filter = compile(&profile::profile(Machine::X86_64), Machine::X86_64).unwrap();
    let check = |abi: Abi, name: &str, first: u64, expected: u32| {
        let number = abi.table().numbers_of(name)[0];
        let mut arguments = [0; 6];
        arguments[0] = first;
        let call = Call {
            number,
            arch: abi.audit_arch(),
            arguments,
        };
        assert_eq!(
            run(&filter, &call).0,
            expected,
            "{abi:?} {name}({first:#x})"
        );
    };
    for abi in [Abi::X86_64, Abi::I386] {
        for name in [
            "read",
            "execve",
            "ptrace",
            "chroot",
            "fchmodat2",
            "mseal",
            "statmount",
        ] {
            check(abi, name, 0, SECCOMP_RET_ALLOW);
        }
        for name in [
            "mount",
            "unshare",
            "setns",
            "bpf",
            "keyctl",
            "io_uring_setup",
            "reboot",
        ] {
            check(abi, name, 0, EPERM);
        }
        check(abi, "clone3", 0, ENOSYS);
        check(
            abi,
            "clone",
            0x1200_0011 & !0x1000_0000 & !0x0200_0000,
            SECCOMP_RET_ALLOW,
        );
        check(abi, "clone", 0x003d_0f00, SECCOMP_RET_ALLOW);
        check(abi, "clone", 0x1000_0011, EPERM);
        check(abi, "clone", 0x0002_0011, EPERM);
        check(abi, "socket", 1, SECCOMP_RET_ALLOW);
        check(abi, "socket", 16, SECCOMP_RET_ALLOW);
        check(abi, "socket", 38, EPERM);
        check(abi, "socket", 40, EPERM);
        check(abi, "personality", 0xffff_ffff, SECCOMP_RET_ALLOW);
        check(abi, "personality", 0x0004_0000, EPERM);
    }
    check(Abi::X86_64, "socket", (1 << 32) | 1, EPERM);
    check(Abi::I386, "socketcall", 1, SECCOMP_RET_ALLOW);
    check(Abi::I386, "modify_ldt", 0, SECCOMP_RET_ALLOW);
    for (arch, number) in [(0xc000_003e, 600), (0xc000_003e, 400), (0x4000_0003, 1000)] {
        let call = Call {
            number,
            arch,
            arguments: [0; 6],
        };
        assert_eq!(run(&filter, &call).0, ENOSYS, "{call:x?}");
    }
}

#[test]
fn every_name_of_the_default_profile_exists() {
    for machine in [Machine::X86_64, Machine::Aarch64] {
        let abis = [machine.abi64(), machine.abi32().0];
        for name in profile::profile(machine)
            .syscalls()
            .iter()
            .flatten()
            .flat_map(|s| s.names())
        {
            // Some are another machine's; none may be a typing error.
            let all = [Abi::X86_64, Abi::I386, Abi::Aarch64, Abi::Arm];
            assert!(
                all.iter()
                    .any(|abi| !abi.table().numbers_of(name).is_empty()),
                "{name}"
            );
        }
        assert!(
            abis.iter()
                .all(|abi| !abi.table().numbers_of("openat").is_empty())
        );
    }
}

#[test]
fn the_default_filter_is_short_and_shallow() {
    for machine in [Machine::X86_64, Machine::Aarch64] {
        let mut profile = profile::profile(machine);
        let whole = compile(&profile, machine).unwrap();
        profile.set_architectures(None);
        let native = compile(&profile, machine).unwrap();
        let arch = machine.abi64().audit_arch();
        let steps = (0..470)
            .map(|number| {
                run(
                    &whole,
                    &Call {
                        number,
                        arch,
                        arguments: [0; 6],
                    },
                )
                .1
            })
            .max();
        println!(
            "{machine:?}: {} instructions, {} of them 64-bit, at most {steps:?} steps",
            whole.len() / INSTRUCTION_BYTES,
            native.len() / INSTRUCTION_BYTES,
        );
        assert!(whole.len() / INSTRUCTION_BYTES < 600);
        assert!(steps < Some(20));
    }
}

#[test]
fn compiled_profiles_are_kept_within_the_bound() {
    for errno in 0..40 {
        let mut profile = default_profile();
        profile.set_default_errno_ret(Some(errno));
        let first = super::compile(&profile).unwrap();
        assert_eq!(first, super::compile(&profile).unwrap());
    }
    assert!(cache().len() <= CACHE_ENTRIES_MAX);
    assert_eq!(
        super::compile(&default_profile()).unwrap(),
        default_filter()
    );
}
