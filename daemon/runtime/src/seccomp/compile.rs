//! From a profile to a BPF program.
//!
//! ```text
//!   load arch ─┬─ 64-bit ─► load number ─► binary search over intervals ─┬─► return a value
//!              ├─ 32-bit ─► load number ─► binary search over intervals ─┤
//!              └─ other ──► kill                                          └─► argument rules ─► return
//! ```
//!
//! When a filter is installed the kernel runs it for every number to learn which are allowed
//! whatever the arguments (kernel/seccomp.c, `seccomp_cache_prepare_bitmap`), so a search of some
//! eight comparisons a number, not a chain of hundreds, is what a container's start costs.

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompFilterFlag};

use super::Error;
use super::arch::{Abi, Machine, X32_BIT};
use super::bpf::{
    Emitter, IF_AT_LEAST, IF_EQUAL, IF_GREATER, Label, OFFSET_ARCH, OFFSET_NUMBER, offset_high,
    offset_low,
};
use super::policy::{
    Condition, ENOSYS, Interval, Outcome, Rule, SECCOMP_RET_KILL_PROCESS, Test, intervals,
};

/// Compiles a profile for a machine.
///
/// # Errors
/// Those of [`Error`].
pub(super) fn compile(profile: &LinuxSeccomp, machine: Machine) -> Result<Vec<u8>, Error> {
    refuse_settings(profile)?;
    let asked = |arch| profile.architectures().iter().flatten().any(|a| *a == arch);
    let mut emitter = Emitter::default();
    let kill = emitter.ret(SECCOMP_RET_KILL_PROCESS);
    let (abi32, name32) = machine.abi32();
    let other = if asked(name32) {
        let search = search(&mut emitter, &intervals(profile, abi32)?);
        let entry = emitter.load(OFFSET_NUMBER, search);
        emitter.branch(IF_EQUAL, abi32.audit_arch(), entry, kill)
    } else {
        kill
    };
    let entry = native(
        &mut emitter,
        profile,
        machine.abi64(),
        asked(Arch::ScmpArchX32),
    )?;
    let entry = emitter.branch(IF_EQUAL, machine.abi64().audit_arch(), entry, other);
    let entry = emitter.load(OFFSET_ARCH, entry);
    emitter.finish(entry)
}

/// The 64-bit interface, which every filter has. Unless x32 is asked for its calls get ENOSYS, as
/// from a kernel without it.
fn native(
    emitter: &mut Emitter,
    profile: &LinuxSeccomp,
    abi: Abi,
    x32: bool,
) -> Result<Label, Error> {
    let intervals = intervals(profile, abi)?;
    let search = search(emitter, &intervals);
    let entry = match (abi, x32) {
        (Abi::X86_64, true) => emitter.and(!X32_BIT, search),
        (Abi::X86_64, false) => {
            let enosys = emitter.ret(ENOSYS);
            emitter.branch(IF_AT_LEAST, X32_BIT, enosys, search)
        }
        _ => search,
    };
    Ok(emitter.load(OFFSET_NUMBER, entry))
}

/// Refuses what would change the meaning of a filter that is installed without it.
fn refuse_settings(profile: &LinuxSeccomp) -> Result<(), Error> {
    if profile.listener_path().is_some() {
        return Err(Error::Setting {
            setting: "listenerPath".to_owned(),
        });
    }
    let refused = profile.flags().iter().flatten().find(|flag| {
        // The filter is installed while the process has one thread.
        !matches!(flag, LinuxSeccompFilterFlag::SeccompFilterFlagTsync)
    });
    refused.map_or(Ok(()), |flag| {
        Err(Error::Setting {
            setting: flag.to_string(),
        })
    })
}

/// A search for the accumulator's interval, of depth log2 of their number.
fn search(emitter: &mut Emitter, intervals: &[Interval]) -> Label {
    match intervals {
        [] => emitter.ret(ENOSYS),
        [interval] => outcome(emitter, &interval.outcome),
        _ => {
            let (low, high) = intervals.split_at(intervals.len() / 2);
            let boundary = high.first().map_or(0, |interval| interval.first);
            let high = search(emitter, high);
            let low = search(emitter, low);
            emitter.branch(IF_AT_LEAST, boundary, high, low)
        }
    }
}

fn outcome(emitter: &mut Emitter, outcome: &Outcome) -> Label {
    match outcome {
        Outcome::Always(value) => emitter.ret(*value),
        Outcome::ByArguments { rules, otherwise } => {
            let mut groups = group(rules);
            let mut label = emitter.ret(*otherwise);
            while let Some(rules) = groups.pop() {
                label = match rules {
                    [rule] => conditions(emitter, rule, label),
                    rules => alternatives(emitter, rules, label),
                };
            }
            label
        }
    }
}

/// Splits rules into runs that [`alternatives`] can test with one load of each half.
fn group(rules: &[Rule]) -> Vec<&[Rule]> {
    rules
        .chunk_by(|a, b| match (single(a), single(b)) {
            (Some(a), Some(b)) => a.argument == b.argument && high(a.value) == high(b.value),
            _ => false,
        })
        .collect()
}

/// The condition of a rule that has one only, and whose outcome needs an equal high half.
fn single(rule: &Rule) -> Option<&Condition> {
    let [condition] = rule.conditions.as_slice() else {
        return None;
    };
    let narrow =
        high(condition.value) == 0 && matches!(condition.test, Test::AtLeast { holds: false });
    let equal = matches!(condition.test, Test::Equal { holds: true });
    let whole = condition.mask == u64::MAX || condition.mask == u64::from(u32::MAX);
    (whole && (narrow || equal)).then_some(condition)
}

/// Several rules on the low half of one argument: as `socket` has for its families.
fn alternatives(emitter: &mut Emitter, rules: &[Rule], otherwise: Label) -> Label {
    let mut label = otherwise;
    let mut first = None;
    for rule in rules.iter().rev() {
        let Some(condition) = single(rule) else {
            continue;
        };
        let value = emitter.ret(rule.value);
        label = match condition.test {
            Test::AtLeast { .. } => emitter.branch(IF_AT_LEAST, low(condition.value), label, value),
            _ => emitter.branch(IF_EQUAL, low(condition.value), value, label),
        };
        first = Some(condition);
    }
    let Some(condition) = first else { return label };
    let label = emitter.load(offset_low(condition.argument), label);
    if high(condition.mask) == 0 {
        return label;
    }
    let label = emitter.branch(IF_EQUAL, high(condition.value), label, otherwise);
    emitter.load(offset_high(condition.argument), label)
}

/// One rule: its value if all conditions hold, else what follows.
fn conditions(emitter: &mut Emitter, rule: &Rule, otherwise: Label) -> Label {
    let mut label = emitter.ret(rule.value);
    for condition in rule.conditions.iter().rev() {
        label = match condition.test {
            Test::Equal { holds: true } => equal(emitter, condition, label, otherwise),
            Test::Equal { holds: false } => equal(emitter, condition, otherwise, label),
            Test::Greater { holds: true } => {
                order(emitter, condition, IF_GREATER, label, otherwise)
            }
            Test::Greater { holds: false } => {
                order(emitter, condition, IF_GREATER, otherwise, label)
            }
            Test::AtLeast { holds: true } => {
                order(emitter, condition, IF_AT_LEAST, label, otherwise)
            }
            Test::AtLeast { holds: false } => {
                order(emitter, condition, IF_AT_LEAST, otherwise, label)
            }
        };
    }
    label
}

/// `(argument & mask) == value`, half by half; halves without mask are not looked at.
fn equal(emitter: &mut Emitter, condition: &Condition, yes: Label, no: Label) -> Label {
    if condition.value & !condition.mask != 0 {
        return no;
    }
    let argument = condition.argument;
    let halves = [
        (
            offset_low(argument),
            low(condition.mask),
            low(condition.value),
        ),
        (
            offset_high(argument),
            high(condition.mask),
            high(condition.value),
        ),
    ];
    let mut label = yes;
    for (offset, mask, value) in halves.into_iter().filter(|(_, mask, _)| *mask != 0) {
        label = emitter.branch(IF_EQUAL, value, label, no);
        if mask != u32::MAX {
            label = emitter.and(mask, label);
        }
        label = emitter.load(offset, label);
    }
    label
}

/// `argument > value` or `argument >= value`: the high halves decide unless they are equal.
fn order(emitter: &mut Emitter, condition: &Condition, code: u16, yes: Label, no: Label) -> Label {
    let label = emitter.branch(code, low(condition.value), yes, no);
    let label = emitter.load(offset_low(condition.argument), label);
    if high(condition.mask) == 0 {
        return label;
    }
    let label = emitter.branch(IF_EQUAL, high(condition.value), label, no);
    let label = emitter.branch(IF_GREATER, high(condition.value), yes, label);
    emitter.load(offset_high(condition.argument), label)
}

fn low(value: u64) -> u32 {
    (value & u64::from(u32::MAX)) as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}
