//! Prepares the machine and enters the place where tests run.
//!
//! As root: an ordinary user with a subordinate range, his runtime directory, device modes, and a
//! private mount namespace in which /sys/fs/cgroup is cgroup2 with a subtree that he owns. All of
//! it stays for the next run, except for the namespace and the cgroup. As an ordinary user: a scope
//! of his systemd, delegated.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::{SigSet, Signal},
    unistd::{Uid, User, chown},
};
use rcd_tests::{
    Error, Result,
    command::{check, exit_code},
    environment::{
        BIN_VARIABLE, CACHE_VARIABLE, CGROUP_VARIABLE, WORK_VARIABLE, end_cgroup,
        remove_owned_by_range,
    },
};

use crate::{build, packages};

/// The ordinary user that root's tests run as.
const USER: &str = "rcd-test";
/// Ids that a container needs: every 16-bit one.
const RANGE_IDS: u64 = 65_536;
/// Prefix of the cgroups of runs; the pid of the run follows.
const CGROUP_PREFIX: &str = "rcd-test-";
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Variables of the caller that pass through to the inner run.
const PASSED: [&str; 6] = [
    "RCD_LOG",
    "RCD_TEST_LOG",
    "RCD_TEST_KEEP",
    "RUST_BACKTRACE",
    "TERM",
    "RCD_TEST_JOBS",
];

/// Runs `xtask inside ARGUMENTS` as an ordinary user, with the programs of the folder `programs`.
///
/// Yields its exit code.
pub(crate) fn enter(
    programs: &Path,
    arguments: &[String],
    needed: &[&[(&str, &'static str)]],
) -> Result<u8> {
    let root = Uid::effective().is_root();
    for list in needed {
        packages::ensure(list, root)?;
    }
    let code = if root {
        as_root(programs, arguments)
    } else {
        as_user(programs, arguments)
    }?;
    Ok(u8::try_from(code).unwrap_or(1))
}

fn as_user(programs: &Path, arguments: &[String]) -> Result<i32> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let home = home.ok_or_else(|| Error::Missing("HOME is not set".into()))?;
    let place = Place::make(&home.join(".cache/rcd-tests"), programs)?;
    let mut command = Command::new("systemd-run");
    let scope = format!("{CGROUP_PREFIX}{}.scope", process::id());
    command.args([
        "--user",
        "--scope",
        "--quiet",
        "-p",
        "Delegate=yes",
        "--unit",
        &scope,
        "--",
    ]);
    let alive = Command::new("systemctl")
        .args(["--user", "list-units", "-q"])
        .output();
    if !alive.is_ok_and(|output| output.status.success()) {
        eprintln!("xtask: no systemd user manager answers; tests that need one are skipped");
        command = Command::new("env");
    }
    let own = env::current_exe().map_err(Error::io("find this program"))?;
    command
        .arg(own)
        .arg("inside")
        .args(arguments)
        .envs(place.variables());
    let code = run_deaf_to_interrupts(&mut command);
    // What an interrupted run left in its scope.
    Command::new("systemctl")
        .args(["--user", "stop", "--quiet", &scope])
        .output()
        .ok();
    code
}

fn as_root(programs: &Path, arguments: &[String]) -> Result<i32> {
    let user = ensure_user()?;
    ensure_devices(&user)?;
    let place = Place::make(&user.dir.join("rcd"), programs)?;
    for path in [&place.work, &place.cache] {
        own(path, &user)?;
    }
    let cgroup = enter_namespace(&user)?;
    let mut environment = place.variables();
    let runtime = format!("/run/user/{}", user.uid);
    let system = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
    for (name, value) in [
        ("HOME", user.dir.to_string_lossy().into_owned()),
        ("USER", user.name.clone()),
        ("LOGNAME", user.name.clone()),
        ("LANG", "C.UTF-8".into()),
        ("PATH", system.into()),
        (
            "DBUS_SESSION_BUS_ADDRESS",
            format!("unix:path={runtime}/bus"),
        ),
        ("XDG_RUNTIME_DIR", runtime),
        (
            CGROUP_VARIABLE,
            cgroup.join("user").to_string_lossy().into_owned(),
        ),
    ] {
        environment.insert(name.into(), value);
    }
    let own = env::current_exe().map_err(Error::io("find this program"))?;
    // A shell moves itself into the user's cgroup while it is still root, and then becomes him.
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
        .arg(cgroup.join("user/leaf/cgroup.procs"))
        .args(["setpriv", "--reuid"])
        .arg(user.uid.to_string())
        .arg("--regid")
        .arg(user.gid.to_string())
        .args(["--init-groups", "--inh-caps=-all", "--"])
        .arg(own)
        .arg("inside")
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir(&user.dir);
    let code = run_deaf_to_interrupts(&mut command);
    end_cgroup(&cgroup);
    code
}

/// Folders of one run.
struct Place {
    bin: PathBuf,
    work: PathBuf,
    cache: PathBuf,
    run: PathBuf,
}

impl Place {
    fn make(base: &Path, programs: &Path) -> Result<Self> {
        remove_dead_runs(base);
        let run = base.join(process::id().to_string());
        let place = Self {
            bin: run.join("bin"),
            work: run.join("work"),
            cache: base.join("cache"),
            run: run.clone(),
        };
        for folder in [&place.bin, &place.work, &place.cache] {
            fs::create_dir_all(folder).map_err(Error::io(format!("make {}", folder.display())))?;
        }
        build::stage(programs, &place.bin)?;
        Ok(place)
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut all = BTreeMap::from([
            (BIN_VARIABLE.to_owned(), text(&self.bin)),
            (WORK_VARIABLE.to_owned(), text(&self.work)),
            (CACHE_VARIABLE.to_owned(), text(&self.cache)),
        ]);
        for name in PASSED {
            if let Ok(value) = env::var(name) {
                all.insert(name.to_owned(), value);
            }
        }
        all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if env::var_os("RCD_TEST_KEEP").is_none() {
            remove_owned_by_range(&[&self.run]);
        }
    }
}

/// Folders whose run was killed before it could remove them.
fn remove_dead_runs(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_string_lossy().parse::<u32>();
        if pid.is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_owned_by_range(&[&entry.path()]);
        }
    }
}

/// Waits for a child that has the terminal: Ctrl-C ends the child, and what we have to clean up
/// is cleaned up afterwards.
fn run_deaf_to_interrupts(command: &mut Command) -> Result<i32> {
    interrupts()
        .thread_block()
        .map_err(Error::io("block signals"))?;
    let status = command.status().map_err(Error::io("run the inner part"));
    Ok(exit_code(status?))
}

/// Signals that the outer part of a task leaves to its inner part.
pub(crate) fn interrupts() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
}

fn ensure_user() -> Result<User> {
    let find = || User::from_name(USER).map_err(Error::io(format!("look up {USER}")));
    let user = match find()? {
        Some(user) => user,
        None => {
            println!("making the user {USER}");
            check(Command::new("useradd").args(["--create-home", "--shell", "/bin/sh", USER]))?;
            find()?.ok_or_else(|| Error::Missing(format!("useradd made no {USER}")))?
        }
    };
    for (file, flag) in [
        ("/etc/subuid", "--add-subuids"),
        ("/etc/subgid", "--add-subgids"),
    ] {
        let text = fs::read_to_string(file).unwrap_or_default();
        if largest_range(&text, USER) < RANGE_IDS {
            let first = free_range(&text);
            let range = format!("{first}-{}", first + RANGE_IDS - 1);
            check(Command::new("usermod").args([flag, &range, USER]))?;
        }
    }
    Ok(user)
}

fn ranges(text: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((
            fields.next()?,
            fields.next()?.parse().ok()?,
            fields.next()?.trim().parse().ok()?,
        ))
    })
}

fn largest_range(text: &str, user: &str) -> u64 {
    ranges(text)
        .filter(|(name, ..)| *name == user)
        .map(|(.., size)| size)
        .max()
        .unwrap_or(0)
}

/// First id behind every range that somebody has.
fn free_range(text: &str) -> u64 {
    ranges(text)
        .map(|(_, first, size)| first + size)
        .max()
        .unwrap_or(0)
        .max(100_000)
}

/// Everything that a distribution's udev and a login would have done.
fn ensure_devices(user: &User) -> Result<()> {
    for device in ["/dev/fuse", "/dev/net/tun"] {
        let mode = fs::Permissions::from_mode(0o666);
        fs::set_permissions(device, mode).map_err(Error::io(format!("open {device} to all")))?;
    }
    let runtime = PathBuf::from(format!("/run/user/{}", user.uid));
    for folder in [Path::new("/run/systemd/system"), &runtime] {
        fs::create_dir_all(folder).map_err(Error::io(format!("make {}", folder.display())))?;
    }
    own(&runtime, user)?;
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700))
        .map_err(Error::io("close the runtime directory to others"))
}

fn own(path: &Path, user: &User) -> Result<()> {
    chown(path, Some(user.uid), Some(user.gid)).map_err(Error::io(format!(
        "give {} to {}",
        path.display(),
        user.name
    )))
}

/// Enters a private mount namespace with cgroup2 at its usual place, and makes a cgroup in it
/// whose child `user` belongs to the user.
fn enter_namespace(user: &User) -> Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(Error::io("make a mount namespace"))?;
    let propagation = |flag| {
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | flag,
            None::<&str>,
        )
        .map_err(Error::io("change the propagation of mounts"))
    };
    propagation(MsFlags::MS_PRIVATE)?;
    umount2(CGROUP_ROOT, MntFlags::MNT_DETACH).ok();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("cgroup2"),
        CGROUP_ROOT,
        Some("cgroup2"),
        flags,
        None::<&str>,
    )
    .map_err(Error::io("mount cgroup2"))?;
    open_way_to_checkout()?;
    propagation(MsFlags::MS_SHARED)?;
    end_dead_cgroups();
    let cgroup = Path::new(CGROUP_ROOT).join(format!("{CGROUP_PREFIX}{}", process::id()));
    for part in ["user", "user/leaf"] {
        let part = cgroup.join(part);
        fs::create_dir_all(&part).map_err(Error::io(format!("make {}", part.display())))?;
        own(&part, user)?;
        for file in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
            own(&part.join(file), user)?;
        }
    }
    Ok(cgroup)
}

/// A checkout below a directory that others may not enter (root's home, for instance) is bound
/// over a stand-in of that directory, in this namespace only.
fn open_way_to_checkout() -> Result<()> {
    let own = env::current_exe().map_err(Error::io("find this program"))?;
    let target = own.ancestors().nth(2).unwrap_or(&own).to_owned();
    let closed = |path: &Path| {
        let way = path.ancestors().skip(1);
        let shut = way.filter(|folder| {
            fs::metadata(folder).is_ok_and(|meta| meta.permissions().mode() & 0o005 != 0o005)
        });
        shut.last().map(Path::to_owned)
    };
    let wanted: Vec<(PathBuf, PathBuf)> = [build::root(), target]
        .into_iter()
        .filter_map(|path| closed(&path).map(|barrier| (path, barrier)))
        .collect();
    let bind = |from: &Path, to: &Path| {
        fs::create_dir_all(to).map_err(Error::io(format!("make {}", to.display())))?;
        mount(
            Some(from),
            to,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .map_err(Error::io(format!("bind {}", from.display())))
    };
    let aside = PathBuf::from(format!("/run/rcd-test-{}", process::id()));
    for (number, (path, _)) in wanted.iter().enumerate() {
        bind(path, &aside.join(number.to_string()))?;
    }
    for (_, barrier) in &wanted {
        mount(
            Some("tmpfs"),
            barrier,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755"),
        )
        .map_err(Error::io(format!("cover {}", barrier.display())))?;
    }
    for (number, (path, _)) in wanted.iter().enumerate() {
        let seat = aside.join(number.to_string());
        bind(&seat, path)?;
        umount2(&seat, MntFlags::MNT_DETACH).ok();
    }
    fs::remove_dir_all(&aside).ok();
    Ok(())
}

/// Ends what runs that were killed left behind.
fn end_dead_cgroups() {
    for entry in fs::read_dir(CGROUP_ROOT).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_string_lossy()
            .strip_prefix(CGROUP_PREFIX)
            .and_then(|p| p.parse().ok());
        if pid.is_some_and(|pid: u32| !Path::new(&format!("/proc/{pid}")).exists()) {
            end_cgroup(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{RANGE_IDS, free_range, largest_range};

    #[test]
    fn ranges_of_others_are_not_taken() {
        let text = "alice:100000:65536\nbob:200000:1000\nbroken\nbob:300000:65536\n";
        assert_eq!(largest_range(text, "bob"), RANGE_IDS);
        assert_eq!(largest_range(text, "carol"), 0);
        assert_eq!(free_range(text), 365_536);
        assert_eq!(free_range(""), 100_000);
    }
}
