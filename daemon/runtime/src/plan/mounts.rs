//! The spec's `mounts`: fstab-style option strings to typed flags and file system options.

use oci_spec::runtime::Mount;
use rcd_init::plan::{self, MountFlags, MountKind};

use super::{absolute, is_set, string};
use crate::Error;

/// The group of terminals in distributions' `/etc/group`, which Docker's devpts options name.
const TTY_GID: u32 = 5;

/// File systems that a container may mount, and the options of each that are passed on.
const FILESYSTEMS: [(&str, &[&str]); 7] = [
    ("proc", &["hidepid", "subset"]),
    ("sysfs", &[]),
    ("tmpfs", &["mode", "size", "nr_inodes", "uid", "gid"]),
    (
        "devpts",
        &["newinstance", "ptmxmode", "mode", "uid", "gid", "max"],
    ),
    ("mqueue", &[]),
    ("cgroup", &[]),
    ("cgroup2", &[]),
];

/// What the options of one mount come to.
#[derive(Default)]
struct Options {
    flags: MountFlags,
    bind: bool,
    recursive: bool,
    rest: Vec<(String, String)>,
}

pub(super) fn compile(mounts: &[Mount], gid_max: u32) -> Result<Vec<plan::Mount>, Error> {
    mounts
        .iter()
        .enumerate()
        .map(|(n, m)| one(m, &format!("mounts[{n}]"), gid_max))
        .collect()
}

fn one(mount: &Mount, field: &str, gid_max: u32) -> Result<plan::Mount, Error> {
    let target = absolute(mount.destination(), &format!("{field}.destination"))?;
    for (name, set) in [
        ("uidMappings", is_set(mount.uid_mappings())),
        ("gidMappings", is_set(mount.gid_mappings())),
    ] {
        if set {
            return Err(Error::Unsupported {
                field: format!("{field}.{name}"),
            });
        }
    }
    let options = options(mount, field)?;
    let typ = mount.typ().as_deref().unwrap_or_default();
    let kind = if options.bind || typ == "bind" {
        bind(mount, &options, field)?
    } else {
        filesystem(typ, options.rest, field, gid_max)?
    };
    Ok(plan::Mount {
        target,
        kind,
        flags: options.flags,
    })
}

fn bind(mount: &Mount, options: &Options, field: &str) -> Result<MountKind, Error> {
    if let Some((option, _)) = options.rest.first() {
        return Err(unsupported_option(field, option));
    }
    let source = mount.source().as_ref();
    let source = source.ok_or_else(|| Error::invalid(format!("{field}.source"), "missing"))?;
    Ok(MountKind::Bind {
        source: absolute(source, &format!("{field}.source"))?,
        recursive: options.recursive,
    })
}

fn filesystem(
    typ: &str,
    mut options: Vec<(String, String)>,
    field: &str,
    gid_max: u32,
) -> Result<MountKind, Error> {
    let known = FILESYSTEMS.iter().find(|(name, _)| *name == typ);
    let Some((_, allowed)) = known else {
        return Err(Error::Unsupported {
            field: format!("{field}.type `{typ}`"),
        });
    };
    if let Some((key, _)) = options
        .iter()
        .find(|(key, _)| !allowed.contains(&key.as_str()))
    {
        return Err(unsupported_option(field, key));
    }
    if typ == "devpts" && gid_max < TTY_GID {
        options.retain(|(key, value)| key != "gid" || *value != TTY_GID.to_string());
    }
    // Docker's specs say `cgroup` on either version; only the unified hierarchy is supported.
    let fstype = if typ == "cgroup" { "cgroup2" } else { typ };
    Ok(MountKind::Filesystem {
        fstype: fstype.to_owned(),
        options,
    })
}

fn options(mount: &Mount, field: &str) -> Result<Options, Error> {
    let mut parsed = Options::default();
    for option in mount.options().as_deref().unwrap_or_default() {
        let flags = &mut parsed.flags;
        match option.as_str() {
            "ro" | "rro" => flags.readonly = true,
            "rw" => flags.readonly = false,
            "nosuid" => flags.nosuid = true,
            "suid" => flags.nosuid = false,
            "nodev" => flags.nodev = true,
            "dev" => flags.nodev = false,
            "noexec" => flags.noexec = true,
            "exec" => flags.noexec = false,
            "bind" => parsed.bind = true,
            "rbind" => (parsed.bind, parsed.recursive) = (true, true),
            // What every mount gets anyhow: private propagation, the kernel's default for atime.
            "private" | "rprivate" | "relatime" | "defaults" => {}
            // No other flag of mount(8) is a file system's option.
            "shared" | "rshared" | "slave" | "rslave" | "unbindable" | "runbindable"
            | "noatime" | "strictatime" | "sync" | "dirsync" | "mand" | "remount" | "idmap"
            | "ridmap" | "tmpcopyup" => return Err(unsupported_option(field, option)),
            other => {
                let other = string(other, &format!("{field}.options"))?;
                let (key, value) = other.split_once('=').unwrap_or((&other, ""));
                parsed.rest.push((key.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(parsed)
}

fn unsupported_option(field: &str, option: &str) -> Error {
    Error::Unsupported {
        field: format!("{field}.options `{option}`"),
    }
}
