//! Paths resolved beneath a directory that takes the place of `/`: neither `..` nor absolute
//! symbolic links nor the magic links of procfs lead out of it (openat2(2), Linux 5.6).

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

/// How often a look-up is repeated that raced with a rename or mount anywhere on the machine, which
/// the kernel answers with EAGAIN. A pass takes microseconds.
const RACES_MAX: u32 = 1000;

/// Opens `path` with `root` as `/`. O_CLOEXEC is added.
///
/// # Errors
/// As open(2); ELOOP also where a magic link is met; EAGAIN after [`RACES_MAX`] races.
pub fn open_beneath<P: ?Sized + NixPath>(
    root: BorrowedFd<'_>,
    path: &P,
    flags: OFlag,
) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    open_how(root, path, flags, Mode::empty(), resolve)
}

/// As [`open_beneath`], and refuses every symbolic link on the way.
///
/// # Errors
/// ELOOP for a symbolic link.
pub fn open_beneath_without_links<P: ?Sized + NixPath>(
    root: BorrowedFd<'_>,
    path: &P,
    flags: OFlag,
) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
    open_how(root, path, flags, Mode::empty(), resolve)
}

/// Makes the file `name`, which must not exist, in `dir`.
///
/// # Errors
/// EEXIST if there is anything of that name, a dangling symbolic link too.
pub fn create_file<P: ?Sized + NixPath>(
    dir: BorrowedFd<'_>,
    name: &P,
    mode: Mode,
) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    open_how(dir, name, flags, mode, resolve)
}

fn open_how<P: ?Sized + NixPath>(
    dir: BorrowedFd<'_>,
    path: &P,
    flags: OFlag,
    mode: Mode,
    resolve: ResolveFlag,
) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(mode)
        .resolve(resolve);
    for _ in 0..RACES_MAX {
        match openat2(dir, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return result,
        }
    }
    Err(Errno::EAGAIN)
}

/// The working directory as the kernel sees it. Unlike the C library's function, it guesses nothing
/// for a directory outside the root.
///
/// # Errors
/// ENOENT if the directory was removed or lies outside the process's root.
pub fn working_directory() -> nix::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;

    let mut buffer = vec![0; libc::PATH_MAX as usize];
    // SAFETY: the buffer is writable and its true length is passed.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    let length = usize::try_from(Errno::result(length)?).unwrap_or(0);
    // The length counts the final NUL.
    buffer.truncate(length.saturating_sub(1));
    // Linux before 2.6.36 aside, an unreachable directory begins with "(unreachable)".
    if buffer.first() != Some(&b'/') {
        return Err(Errno::ENOENT);
    }
    Ok(PathBuf::from(std::ffi::OsString::from_vec(buffer)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let name = format!("rcd-openat2-{}", std::process::id());
        // The kernel names the place without the links that may lead to it.
        let temporary = std::env::temp_dir().canonicalize().unwrap();
        let dir = temporary.join(name);
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        std::os::unix::fs::symlink("../../../../etc", dir.join("out")).unwrap();
        let root = std::fs::File::open(&dir).unwrap();
        let seen = open_beneath(root.as_fd(), "/out", OFlag::O_PATH).unwrap();
        let strict = open_beneath_without_links(root.as_fd(), "/out", OFlag::O_PATH);
        let real = std::fs::read_link(format!("/proc/self/fd/{}", seen.as_raw_fd()));
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(real.unwrap(), dir.join("etc"));
        assert_eq!(strict.unwrap_err(), Errno::ELOOP);
    }

    #[test]
    fn the_working_directory_is_absolute() {
        assert_eq!(
            working_directory().unwrap(),
            std::env::current_dir().unwrap()
        );
    }
}
