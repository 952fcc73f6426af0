//! Maps the user's own id and all its subordinate ids into the holder's user namespace.
//!
//! Only newuidmap and newgidmap (setuid root, package `uidmap`) may write a map of more than one
//! id, and only from outside the new namespace. So the holder forks a helper *before* it unshares:
//!
//! ```text
//! holder                      helper (stays outside)
//!   fork ────────────────────►  look the ranges up: getsubids, else /etc/subuid, /etc/subgid
//!        ◄──────────────────── Ok or why not
//!   unshare(CLONE_NEWUSER)
//!        ────────── go ──────►  newuidmap, newgidmap on the holder's pid
//!        ◄──────────────────── Ok or why not
//! ```
//!
//! The helper also keeps the name service's libraries, which a look-up of the user's name may load,
//! out of the holder's memory.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;

use nix::unistd::{Gid, Uid, User};
use rcd_sys::{clone, process, scm};
use serde::{Deserialize, Serialize};

use crate::error::{Error, IdMapError};
use crate::protocol::{decode, encode};

/// Subordinate ids that images need: Debian's and Fedora's `nobody` and `nogroup` are 65534.
const IDS_MIN: u64 = 65_536;

/// Lines in a map; the kernel takes 340 (`UID_GID_MAP_MAX_EXTENTS`), one is the user's own id.
const RANGES_MAX: usize = 339;

/// Where a first range starts on a machine that has none: `SUB_UID_MIN` of `login.defs(5)`.
const FIRST_SUBORDINATE: u64 = 100_000;

/// How much of a failed program's message is kept.
const STDERR_BYTES_MAX: usize = 2048;

/// Subordinate ids `start..start + count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u32,
    count: u32,
}

/// The two kinds of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uid,
    Gid,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Uid => "uid",
            Self::Gid => "gid",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Uid => "/etc/subuid",
            Self::Gid => "/etc/subgid",
        }
    }
}

/// What the helper says at each of its two steps.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done,
    Failed(IdMapError),
}

/// The process outside the namespace.
#[derive(Debug)]
pub(crate) struct Helper {
    pid: i32,
    socket: OwnedFd,
}

impl Helper {
    /// Forks it, in a process that has not unshared yet, and waits until it knows the ranges.
    pub(crate) fn start() -> Result<Self, Error> {
        let holder = std::process::id();
        let (mine, theirs) = scm::pair().map_err(Error::call("make a socket pair"))?;
        let keep = [theirs.as_raw_fd()];
        let options = clone::Options {
            keep: Some(&keep),
            ..clone::Options::default()
        };
        let child = clone::clone3(options, move || help(&theirs, holder))
            .map_err(Error::call("fork the helper for id maps"))?;
        let helper = Self {
            pid: child.pid,
            socket: mine,
        };
        helper.answer()?;
        Ok(helper)
    }

    /// Has it write the maps, after the holder has unshared, and waits for its end.
    pub(crate) fn map(self) -> Result<(), Error> {
        scm::send(self.socket.as_fd(), b"go", &[]).map_err(Error::call("signal the helper"))?;
        self.answer()?;
        process::wait(self.pid).map_err(Error::call("wait for the helper"))?;
        Ok(())
    }

    fn answer(&self) -> Result<(), Error> {
        let mut buffer = [0; 4 * STDERR_BYTES_MAX];
        let packet = scm::receive(self.socket.as_fd(), &mut buffer, true)
            .map_err(Error::call("hear from the helper"))?;
        match buffer.get(..packet.len).map(decode) {
            Some(Ok(Answer::Done)) => Ok(()),
            Some(Ok(Answer::Failed(error))) => Err(error.into()),
            _ => Err(IdMapError::Silent.into()),
        }
    }
}

/// All that the helper does.
fn help(socket: &OwnedFd, holder: u32) -> ! {
    let say = |result: &Result<(), IdMapError>| {
        let answer = match result {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed(error.clone()),
        };
        if let Ok(bytes) = encode(&answer) {
            // A holder that is gone needs no answer.
            let _ = scm::send(socket.as_fd(), &bytes, &[]);
        }
    };
    let (uid, gid) = (Uid::current().as_raw(), Gid::current().as_raw());
    let ranges = ranges(Kind::Uid, uid).and_then(|uids| Ok((uids, ranges(Kind::Gid, uid)?)));
    say(&ranges.as_ref().map(drop).map_err(Clone::clone));
    if let Ok((uids, gids)) = ranges
        && matches!(scm::receive(socket.as_fd(), &mut [0; 2], true), Ok(packet) if packet.len == 2)
    {
        let mapped = write_map("newuidmap", holder, uid, &uids)
            .and_then(|()| write_map("newgidmap", holder, gid, &gids));
        say(&mapped);
    }
    process::exit_now(0)
}

/// The user's ranges of one kind: what getsubids says (it also asks SSSD and the like), else what
/// the file says.
fn ranges(kind: Kind, uid: u32) -> Result<Vec<Range>, IdMapError> {
    let name = User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map(|user| user.name);
    let mut found = name
        .as_deref()
        .map(|name| getsubids(kind, name))
        .unwrap_or_default();
    let text = std::fs::read_to_string(kind.file()).unwrap_or_default();
    if found.is_empty() {
        found = parse_file(&text, name.as_deref(), uid);
    }
    found.truncate(RANGES_MAX);
    let have = found.iter().map(|range| u64::from(range.count)).sum();
    if have < IDS_MIN {
        let user = name.unwrap_or_else(|| uid.to_string());
        let free = first_free(&text);
        return Err(IdMapError::NoRange {
            user,
            kind: kind.name().into(),
            have,
            free,
        });
    }
    Ok(found)
}

fn getsubids(kind: Kind, user: &str) -> Vec<Range> {
    let mut command = Command::new("getsubids");
    if kind == Kind::Gid {
        command.arg("-g");
    }
    match command.arg(user).output() {
        Ok(output) if output.status.success() => {
            parse_getsubids(&String::from_utf8_lossy(&output.stdout))
        }
        // Older systems lack it; with it, "no range" is an error too. The file decides then.
        _ => Vec::new(),
    }
}

/// Lines `0: user 100000 65536`.
fn parse_getsubids(text: &str) -> Vec<Range> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(2);
        range(words.next()?, words.next()?)
    };
    collect(text.lines().filter_map(line))
}

/// Lines `user:100000:65536` or `1000:100000:65536` of `subuid(5)`.
fn parse_file(text: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    let line = |line: &str| {
        let mut words = line.trim().split(':');
        let owner = words.next()?;
        let ours = Some(owner) == name || owner.parse() == Ok(uid);
        ours.then(|| range(words.next()?, words.next()?))?
    };
    collect(text.lines().filter_map(line))
}

fn range(start: &str, count: &str) -> Option<Range> {
    let (start, count) = (start.parse::<u32>().ok()?, count.parse::<u32>().ok()?);
    (count > 0 && start.checked_add(count).is_some()).then_some(Range { start, count })
}

/// Without repetitions: a user may be in the file by name and by uid.
fn collect(ranges: impl Iterator<Item = Range>) -> Vec<Range> {
    let mut found: Vec<Range> = Vec::new();
    for range in ranges {
        if !found.contains(&range) {
            found.push(range);
        }
    }
    found
}

/// The first id behind every range of a file, whoever's it is.
fn first_free(text: &str) -> u64 {
    let end = |line: &str| {
        let mut words = line.trim().split(':').skip(1);
        let range = range(words.next()?, words.next()?)?;
        Some(u64::from(range.start) + u64::from(range.count))
    };
    text.lines()
        .filter_map(end)
        .max()
        .unwrap_or(0)
        .max(FIRST_SUBORDINATE)
}

/// Arguments of newuidmap: the user's own id is 0 inside, its subordinate ids follow from 1.
fn arguments(pid: u32, own: u32, ranges: &[Range]) -> Vec<String> {
    let mut arguments = vec![pid.to_string(), "0".into(), own.to_string(), "1".into()];
    let mut inside = 1_u32;
    for range in ranges {
        // (uid_t)-1 is no id, so the last ranges of a user who has nearly all are cut.
        let count = range.count.min(u32::MAX - inside);
        if count == 0 {
            break;
        }
        arguments.extend([
            inside.to_string(),
            range.start.to_string(),
            count.to_string(),
        ]);
        inside += count;
    }
    arguments
}

fn write_map(program: &str, pid: u32, own: u32, ranges: &[Range]) -> Result<(), IdMapError> {
    let arguments = arguments(pid, own, ranges);
    let command = format!("{program} {}", arguments.join(" "));
    let failed = |status: String, stderr: &str| {
        let stderr = stderr.trim().chars().take(STDERR_BYTES_MAX / 4).collect();
        let program = command.chars().take(STDERR_BYTES_MAX / 4).collect();
        IdMapError::Failed {
            program,
            status,
            stderr,
        }
    };
    match Command::new(program).args(&arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(failed(
            output.status.to_string(),
            &String::from_utf8_lossy(&output.stderr),
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(IdMapError::Missing {
            program: program.into(),
        }),
        Err(error) => Err(failed("not started".into(), &error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn getsubids_lines_give_ranges() {
        let check = |text: &str, expected: &[(u32, u32)]| {
            let found: Vec<_> = parse_getsubids(text)
                .iter()
                .map(|range| (range.start, range.count))
                .collect();
            assert_eq!(found, expected, "{text:?}");
        };
        check("0: anna 100000 65536\n", &[(100_000, 65_536)]);
        check(
            "0: anna 100000 10\n1: anna 500 20\n",
            &[(100_000, 10), (500, 20)],
        );
        check("Error fetching ranges\n", &[]);
        check("0: anna 4294967295 65536", &[]);
        check("", &[]);
    }

    #[test]
    fn the_file_knows_users_by_name_and_by_uid() {
        let text = "anna:100000:65536\nbob:165536:65536\n1000:300000:10\nanna:100000:65536\n\
                    anna:x:y\nanna:5\n";
        let found = parse_file(text, Some("anna"), 1000);
        let wanted =
            [(100_000, 65_536), (300_000, 10)].map(|(start, count)| Range { start, count });
        assert_eq!(found, wanted);
        assert!(parse_file(text, None, 7).is_empty());
    }

    #[test]
    fn a_free_range_starts_behind_all_others() {
        assert_eq!(first_free("a:100000:65536\nb:165536:65536"), 231_072);
        assert_eq!(first_free(""), 100_000);
    }

    #[test]
    fn several_ranges_become_one_continuous_map() {
        let ranges = [(100, 10), (500, 20)].map(|(start, count)| Range { start, count });
        assert_eq!(
            arguments(9, 1000, &ranges).join(" "),
            "9 0 1000 1 1 100 10 11 500 20"
        );
    }

    #[test]
    fn the_error_names_a_command_that_would_help() {
        let error = IdMapError::NoRange {
            user: "anna".into(),
            kind: "uid".into(),
            have: 0,
            free: 165_536,
        };
        assert!(
            error
                .to_string()
                .ends_with("usermod --add-subuids 165536-231071 anna")
        );
    }
}
