//! The spec's `process`, for a container's init and for an exec alike.

use oci_spec::runtime::{LinuxCapabilities, PosixRlimit, PosixRlimitType, Process};
use rcd_init::plan::{Capabilities, Plan, ProcessPlan, Rlimit, TerminalSize};

use super::{ProcessExtras, absolute, is_set, refuse, string};
use crate::{Error, caps, seccomp};

/// Compiles the process of an exec, under the default seccomp filter.
///
/// # Errors
/// [`Error::Unsupported`] and [`Error::Invalid`], naming the field.
pub fn compile(process: &Process, extras: &ProcessExtras) -> Result<Plan, Error> {
    let filter = seccomp::default_filter().to_vec();
    Ok(Plan::Exec(Box::new(with_filter(process, extras, filter)?)))
}

pub(super) fn with_filter(
    process: &Process,
    extras: &ProcessExtras,
    seccomp: Vec<u8>,
) -> Result<ProcessPlan, Error> {
    refuse(&[
        ("process.commandLine", is_set(process.command_line())),
        (
            "process.apparmorProfile",
            is_set(process.apparmor_profile()),
        ),
        ("process.selinuxLabel", is_set(process.selinux_label())),
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
        (
            "process.execCPUAffinity",
            process.exec_cpu_affinity().is_some(),
        ),
        ("process.user.umask", process.user().umask().is_some()),
    ])?;
    let argv = strings(process.args().as_deref(), "process.args")?;
    if argv.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("process.args", "no program"));
    }
    Ok(ProcessPlan {
        argv,
        env: strings(process.env().as_deref(), "process.env")?,
        cwd: absolute(process.cwd(), "process.cwd")?,
        create_cwd: extras.create_cwd,
        user: user(process)?,
        groups: groups(process, extras)?,
        terminal: terminal(process)?,
        capabilities: process
            .capabilities()
            .as_ref()
            .map(capabilities)
            .unwrap_or_default(),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        seccomp,
        oom_score_adj: oom_score_adj(process)?,
    })
}

fn strings(texts: Option<&[String]>, field: &str) -> Result<Vec<String>, Error> {
    texts
        .unwrap_or_default()
        .iter()
        .map(|t| string(t, field))
        .collect()
}

fn user(process: &Process) -> Result<String, Error> {
    let user = process.user();
    match user.username() {
        Some(text) => string(text, "process.user.username"),
        None => Ok(format!("{}:{}", user.uid(), user.gid())),
    }
}

fn groups(process: &Process, extras: &ProcessExtras) -> Result<Vec<String>, Error> {
    let gids = process
        .user()
        .additional_gids()
        .iter()
        .flatten()
        .map(|gid| Ok(gid.to_string()));
    let names = extras
        .groups
        .iter()
        .map(|name| string(name, "process.user.groups"));
    gids.chain(names).collect()
}

fn terminal(process: &Process) -> Result<Option<TerminalSize>, Error> {
    if !process.terminal().unwrap_or(false) {
        return Ok(None);
    }
    let size = process.console_size().unwrap_or_default();
    let small = |n: u64| {
        u16::try_from(n).map_err(|_| Error::invalid("process.consoleSize", format!("{n} > 65535")))
    };
    Ok(Some(TerminalSize {
        rows: small(size.height())?,
        columns: small(size.width())?,
    }))
}

fn capabilities(sets: &LinuxCapabilities) -> Capabilities {
    let mask = |set: &Option<_>| set.as_ref().map(caps::mask).unwrap_or_default();
    Capabilities {
        bounding: mask(sets.bounding()),
        effective: mask(sets.effective()),
        permitted: mask(sets.permitted()),
        inheritable: mask(sets.inheritable()),
        ambient: mask(sets.ambient()),
    }
}

fn rlimits(limits: &[PosixRlimit]) -> Result<Vec<Rlimit>, Error> {
    let mut compiled: Vec<Rlimit> = Vec::with_capacity(limits.len());
    for limit in limits {
        let resource = rlimit_number(limit.typ());
        let field = || format!("process.rlimits: {}", limit.typ());
        if limit.soft() > limit.hard() {
            return Err(Error::invalid(
                field(),
                "the soft limit is above the hard limit",
            ));
        }
        if compiled.iter().any(|c| c.resource == resource) {
            return Err(Error::invalid(field(), "given twice"));
        }
        compiled.push(Rlimit {
            resource,
            soft: limit.soft(),
            hard: limit.hard(),
        });
    }
    Ok(compiled)
}

/// `RLIMIT_*` of `asm-generic/resource.h`, which x86-64, arm64 and riscv64 use.
fn rlimit_number(typ: PosixRlimitType) -> u32 {
    match typ {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

fn oom_score_adj(process: &Process) -> Result<Option<i32>, Error> {
    match process.oom_score_adj() {
        Some(n) if !(-1000..=1000).contains(&n) => Err(Error::invalid(
            "process.oomScoreAdj",
            format!("{n} is not within -1000..1000"),
        )),
        other => Ok(other),
    }
}
