//! Who the process is: a user as given on a command line, looked up in the image's files.
//!
//! The rules are Docker's (moby `github.com/moby/sys/user`, `GetExecUser`, `GetAdditionalGroups`):
//! - `""` is uid 0. Digits are an id, never a name, even where a name of digits exists.
//! - Without `:group`, the gid is the passwd entry's (0 without an entry) and the supplementary
//!   groups are those that list the entry's name. With `:group` there are none but the additional ones.
//! - An id needs no entry, a name does. The primary group is also a supplementary one
//!   (CVE-2022-36109).
//!
//! The files are hostile: they are resolved beneath the root, must be regular, are opened without
//! blocking and read up to [`FILE_BYTES_MAX`]; lines that do not parse are passed over.

use std::fs::File;
use std::io::Read;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};

use super::beneath::{Root, file_type};
use super::failure::{At, Result, refuse};
use crate::protocol::Step;

/// The largest passwd or group file that is read; those of machines with thousands of users stay
/// below one MiB.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// The most supplementary groups (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// A user after the look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// User id.
    pub(super) uid: u32,
    /// Primary group.
    pub(super) gid: u32,
    /// Supplementary groups, the primary one first.
    pub(super) groups: Vec<u32>,
    /// Home directory; `/` if there is no entry.
    pub(super) home: String,
}

/// Looks `user` up in the container's files.
pub(super) fn look_up(root: &Root, user: &str, groups: &[String]) -> Result<Identity> {
    let passwd = read(root, "/etc/passwd")?;
    let group = read(root, "/etc/group")?;
    resolve(&passwd, &group, user, groups)
}

/// A missing file is an empty one: minimal images have none.
fn read(root: &Root, path: &str) -> Result<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let fd = match root.open(path, flags) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(errno).at(Step::User, path),
    };
    let status = fstat(&fd).at(Step::User, path)?;
    if file_type(&status) != SFlag::S_IFREG {
        return Err(refuse(Step::User, path, "it is not a regular file"));
    }
    let size = u64::try_from(status.st_size)
        .unwrap_or(0)
        .min(FILE_BYTES_MAX);
    // One more than the size, so that the second read is the last.
    let mut bytes = Vec::with_capacity(size as usize + 1);
    File::from(fd)
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .at(Step::User, path)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let detail = format!("it is larger than {FILE_BYTES_MAX} bytes");
        return Err(refuse(Step::User, path, detail));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An entry of passwd(5), as far as it matters.
struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// An entry of group(5).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Passwd {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = id(fields.nth(1)?)?;
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

fn resolve(passwd: &str, group: &str, user: &str, additional: &[String]) -> Result<Identity> {
    let (who, group_name) = user.split_once(':').unwrap_or((user, ""));
    let wanted = if who.is_empty() {
        Some(0)
    } else {
        number(who)?
    };
    let entry = passwd_entries(passwd).find(|entry| match wanted {
        Some(uid) => entry.uid == uid,
        None => entry.name == who,
    });
    let unknown = "there is no such user in the image's /etc/passwd";
    let uid = entry.as_ref().map(|entry| entry.uid).or(wanted);
    let uid = uid.ok_or_else(|| refuse(Step::User, who, unknown))?;
    let gid = match (group_name, &entry) {
        ("", entry) => entry.as_ref().map_or(0, |entry| entry.gid),
        (name, _) => group_id(group, name)?,
    };
    let mut groups = vec![gid];
    if let (Some(entry), "") = (&entry, group_name) {
        let listed = group_entries(group).filter(|g| g.members.split(',').any(|m| m == entry.name));
        groups.extend(listed.map(|g| g.gid));
    }
    for name in additional {
        groups.push(group_id(group, name)?);
    }
    let home = entry
        .map(|entry| entry.home)
        .filter(|home| !home.is_empty())
        .unwrap_or("/");
    Ok(Identity {
        uid,
        gid,
        groups: distinct(groups, user)?,
        home: home.to_owned(),
    })
}

/// The id that `name` is, if it is written in digits.
fn number(name: &str) -> Result<Option<u32>> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match id(name) {
        Some(id) => Ok(Some(id)),
        None => Err(refuse(
            Step::User,
            name,
            "an id is a number from 0 to 4294967294",
        )),
    }
}

/// An id written out. -1 is none: the kernel's calls read it as "leave unchanged", so that an entry
/// of 4294967295 would leave the process root.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn group_id(group: &str, name: &str) -> Result<u32> {
    if let Some(gid) = number(name)? {
        return Ok(gid);
    }
    let entry = group_entries(group).find(|entry| entry.name == name);
    entry.map(|entry| entry.gid).ok_or_else(|| {
        refuse(
            Step::User,
            name,
            "there is no such group in the image's /etc/group",
        )
    })
}

/// Drops repeated groups and keeps the order.
fn distinct(groups: Vec<u32>, user: &str) -> Result<Vec<u32>> {
    let mut seen = std::collections::BTreeSet::new();
    let groups: Vec<u32> = groups.into_iter().filter(|gid| seen.insert(*gid)).collect();
    if groups.len() > GROUPS_MAX {
        return Err(refuse(
            Step::User,
            user,
            format!("it is in more than {GROUPS_MAX} groups"),
        ));
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # no entry\n+::::::\nbroken:x:abc:0::/:\n\
        app:x:1000:1001:App:/srv/app:/bin/sh\n\
        7:x:70:71::/seven:\n\
        bare:x:5:6\nminus:x:4294967295:0::/:\nnogroup:x:6:4294967295::/:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\naudio:x:63:app,root\n\
        8:x:80:\nminus:x:4294967295:app\ndup:x:10:app\n";

    fn check(
        user: &str,
        additional: &[&str],
        want: std::result::Result<(u32, u32, &[u32], &str), &str>,
    ) {
        let additional: Vec<String> = additional.iter().map(|&name| name.to_owned()).collect();
        let got = resolve(PASSWD, GROUP, user, &additional);
        match want {
            Ok((uid, gid, groups, home)) => {
                let want = Identity {
                    uid,
                    gid,
                    groups: groups.to_vec(),
                    home: home.into(),
                };
                assert_eq!(got.unwrap(), want, "{user:?}");
            }
            Err(object) => assert_eq!(got.unwrap_err().object, object, "{user:?}"),
        }
    }

    #[test]
    fn users_are_resolved_as_docker_does() {
        check("", &[], Ok((0, 0, &[0, 10, 63], "/root")));
        check("root", &[], Ok((0, 0, &[0, 10, 63], "/root")));
        check("0", &[], Ok((0, 0, &[0, 10, 63], "/root")));
        check("app", &[], Ok((1000, 1001, &[1001, 10, 63], "/srv/app")));
        check("1000", &[], Ok((1000, 1001, &[1001, 10, 63], "/srv/app")));
        check("app:wheel", &[], Ok((1000, 10, &[10], "/srv/app")));
        check(
            "app:99",
            &["audio", "5"],
            Ok((1000, 99, &[99, 63, 5], "/srv/app")),
        );
        check("4242", &[], Ok((4242, 0, &[0], "/")));
        check("4242:4343", &[], Ok((4242, 4343, &[4343], "/")));
        check(":wheel", &[], Ok((0, 10, &[10], "/root")));
        check("app:", &[], Ok((1000, 1001, &[1001, 10, 63], "/srv/app")));
        check("bare", &[], Ok((5, 6, &[6], "/")));
    }

    #[test]
    fn digits_are_never_a_name() {
        check("7", &[], Ok((7, 0, &[0], "/")));
        check("app:8", &[], Ok((1000, 8, &[8], "/srv/app")));
    }

    #[test]
    fn what_is_unknown_is_named() {
        check("nobody", &[], Err("nobody"));
        check("app:staff", &[], Err("staff"));
        check("app", &["staff"], Err("staff"));
        check("broken", &[], Err("broken"));
        check("minus", &[], Err("minus"));
        check("nogroup", &[], Err("nogroup"));
        check("app:minus", &[], Err("minus"));
        check("4294967295", &[], Err("4294967295"));
        check("99999999999", &[], Err("99999999999"));
        check("-1", &[], Err("-1"));
        check("root/../x", &[], Err("root/../x"));
    }
}
