//! A profile as the kernel will see it: for one interface, what happens to each number.
//!
//! Rules of the runtime spec name system calls; here they become sorted, merged intervals of
//! numbers, each with one [`Outcome`]. Where libseccomp, behind runc, leaves a choice, so do we:
//! - Names that this interface does not have are skipped.
//! - A call may have several rules. Those with conditions are tried first, in the profile's order;
//!   then the first one without; then the default action.
//! - The conditions of a rule all have to hold, unless two of them are on the same argument: then
//!   any one suffices.
//! - Numbers that no table knows get ENOSYS if the default action denies: programs probe for new
//!   system calls and fall back on ENOSYS only.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::Error;
use super::arch::{Abi, Table};

/// The highest error number that the kernel returns (`MAX_ERRNO`; it silently cuts higher ones).
pub const ERRNO_MAX: u32 = 4095;

/// Arguments of a system call.
const ARGUMENTS: usize = 6;

/// `SECCOMP_RET_ERRNO` with ENOSYS.
pub(super) const ENOSYS: u32 = SECCOMP_RET_ERRNO | nix::libc::ENOSYS.cast_unsigned();

// What a filter returns (linux/seccomp.h).
pub(super) const SECCOMP_RET_KILL_PROCESS: u32 = 0x8000_0000;
pub(super) const SECCOMP_RET_KILL_THREAD: u32 = 0;
pub(super) const SECCOMP_RET_TRAP: u32 = 0x0003_0000;
pub(super) const SECCOMP_RET_ERRNO: u32 = 0x0005_0000;
pub(super) const SECCOMP_RET_LOG: u32 = 0x7ffc_0000;
pub(super) const SECCOMP_RET_ALLOW: u32 = 0x7fff_0000;

/// What becomes of a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This filter value, whatever the arguments.
    Always(u32),
    /// The value of the first rule that holds, or else `otherwise`.
    ByArguments {
        /// Tried in order.
        rules: Vec<Rule>,
        /// If none holds.
        otherwise: u32,
    },
}

/// Conditions that all have to hold, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Never empty.
    pub(super) conditions: Vec<Condition>,
    /// The filter value.
    pub(super) value: u32,
}

/// A comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, 0 to 5.
    pub(super) argument: u8,
    /// `all ones` unless only some bits are compared.
    pub(super) mask: u64,
    /// The comparison.
    pub(super) test: Test,
    /// What it is compared with.
    pub(super) value: u64,
}

/// Unsigned comparisons, reduced to three: the others are these with yes and no swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    /// Equal; `holds` says whether equality or its absence is asked for.
    Equal { holds: bool },
    /// Greater.
    Greater { holds: bool },
    /// Greater or equal.
    AtLeast { holds: bool },
}

/// Numbers from `first` up to the next interval's, all with one outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interval {
    /// The lowest number.
    pub(super) first: u32,
    /// What becomes of them.
    pub(super) outcome: Outcome,
}

/// The filter value of an action.
///
/// # Errors
/// [`Error::Action`] for TRACE and NOTIFY, [`Error::Errno`] above [`ERRNO_MAX`].
pub(super) fn filter_value(
    action: LinuxSeccompAction,
    errno: Option<u32>,
    subject: &str,
) -> Result<u32, Error> {
    match action {
        LinuxSeccompAction::ScmpActAllow => Ok(SECCOMP_RET_ALLOW),
        LinuxSeccompAction::ScmpActLog => Ok(SECCOMP_RET_LOG),
        LinuxSeccompAction::ScmpActTrap => Ok(SECCOMP_RET_TRAP),
        LinuxSeccompAction::ScmpActKillProcess => Ok(SECCOMP_RET_KILL_PROCESS),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            Ok(SECCOMP_RET_KILL_THREAD)
        }
        LinuxSeccompAction::ScmpActErrno => {
            let value = errno.unwrap_or(nix::libc::EPERM.cast_unsigned());
            if value > ERRNO_MAX {
                return Err(Error::Errno {
                    subject: subject.to_owned(),
                    value,
                });
            }
            Ok(SECCOMP_RET_ERRNO | value)
        }
        LinuxSeccompAction::ScmpActTrace | LinuxSeccompAction::ScmpActNotify => {
            Err(Error::Action {
                action: action.to_string(),
            })
        }
    }
}

/// The intervals of an interface, sorted; the first begins at 0. Neighbours differ.
///
/// # Errors
/// As [`filter_value`], and [`Error::Argument`].
pub(super) fn intervals(profile: &LinuxSeccomp, abi: Abi) -> Result<Vec<Interval>, Error> {
    let default = filter_value(
        profile.default_action(),
        profile.default_errno_ret(),
        "default action",
    )?;
    let permissive = matches!(default, SECCOMP_RET_ALLOW | SECCOMP_RET_LOG);
    let unknown = Outcome::Always(if permissive { default } else { ENOSYS });
    let table = abi.table();
    let mut outcomes = collect(profile, abi, table)?;
    let mut intervals = vec![Interval {
        first: 0,
        outcome: unknown.clone(),
    }];
    let mut add = |first: u32, outcome: Outcome| match intervals.last_mut() {
        Some(last) if last.outcome == outcome => {}
        Some(last) if last.first == first => last.outcome = outcome,
        _ => intervals.push(Interval { first, outcome }),
    };
    let mut next = 0;
    for &number in &table.numbers {
        if number > next {
            add(next, unknown.clone());
        }
        let outcome = outcomes.remove(&number).map(|rules| rules.outcome(default));
        add(number, outcome.unwrap_or(Outcome::Always(default)));
        next = number.saturating_add(1);
    }
    add(next, unknown);
    Ok(intervals)
}

/// All rules of one number.
#[derive(Debug, Default)]
struct Rules {
    conditional: Vec<Rule>,
    unconditional: Option<u32>,
}

impl Rules {
    fn outcome(self, default: u32) -> Outcome {
        let otherwise = self.unconditional.unwrap_or(default);
        if self.conditional.iter().all(|rule| rule.value == otherwise) {
            return Outcome::Always(otherwise);
        }
        Outcome::ByArguments {
            rules: self.conditional,
            otherwise,
        }
    }
}

/// The rules of every number that the profile names.
fn collect(profile: &LinuxSeccomp, abi: Abi, table: &Table) -> Result<BTreeMap<u32, Rules>, Error> {
    let mut all: BTreeMap<u32, Rules> = BTreeMap::new();
    for entry in profile.syscalls().iter().flatten() {
        for name in entry.names() {
            // Judged even if this interface lacks the call: a mistake is one everywhere.
            let value = filter_value(entry.action(), entry.errno_ret(), name)?;
            let rules = rules(entry, name, value, abi)?;
            for number in table.numbers_of(name) {
                let of_number = all.entry(*number).or_default();
                if rules.is_empty() {
                    of_number.unconditional.get_or_insert(value);
                }
                of_number.conditional.extend_from_slice(&rules);
            }
        }
    }
    Ok(all)
}

/// The rules that one entry of a profile stands for; none if it has no conditions.
fn rules(entry: &LinuxSyscall, name: &str, value: u32, abi: Abi) -> Result<Vec<Rule>, Error> {
    let arguments = entry.args().as_deref().unwrap_or_default();
    let mut seen = [false; ARGUMENTS];
    let mut repeated = false;
    for argument in arguments {
        let seen = seen
            .get_mut(argument.index())
            .ok_or_else(|| Error::Argument {
                syscall: name.to_owned(),
                index: argument.index(),
            })?;
        repeated |= *seen;
        *seen = true;
    }
    let conditions: Vec<Condition> = arguments
        .iter()
        .map(|argument| condition(argument, abi))
        .collect();
    if conditions.is_empty() {
        Ok(Vec::new())
    } else if repeated {
        Ok(conditions
            .into_iter()
            .map(|c| Rule {
                conditions: vec![c],
                value,
            })
            .collect())
    } else {
        Ok(vec![Rule { conditions, value }])
    }
}

/// A condition, cut to the 32 bits that an argument has on a 32-bit interface.
fn condition(argument: &LinuxSeccompArg, abi: Abi) -> Condition {
    let width = if abi.is_64_bit() {
        u64::MAX
    } else {
        u64::from(u32::MAX)
    };
    let (test, mask, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpEq => (Test::Equal { holds: true }, width, argument.value()),
        LinuxSeccompOperator::ScmpCmpNe => (Test::Equal { holds: false }, width, argument.value()),
        LinuxSeccompOperator::ScmpCmpGt => (Test::Greater { holds: true }, width, argument.value()),
        LinuxSeccompOperator::ScmpCmpLe => {
            (Test::Greater { holds: false }, width, argument.value())
        }
        LinuxSeccompOperator::ScmpCmpGe => (Test::AtLeast { holds: true }, width, argument.value()),
        LinuxSeccompOperator::ScmpCmpLt => {
            (Test::AtLeast { holds: false }, width, argument.value())
        }
        LinuxSeccompOperator::ScmpCmpMaskedEq => (
            Test::Equal { holds: true },
            argument.value() & width,
            argument.value_two().unwrap_or(0),
        ),
    };
    let argument = u8::try_from(argument.index()).unwrap_or(u8::MAX);
    Condition {
        argument,
        mask,
        test,
        value: value & width,
    }
}
