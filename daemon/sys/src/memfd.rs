//! Sealed memory files: `memfd_create(2)`, `F_ADD_SEALS` of `fcntl(2)`.
//!
//! A sealed memfd can be handed to another process as a message that its writer can no longer
//! change, or be executed as a program that nobody can overwrite (CVE-2019-5736).

use std::ffi::CStr;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Errno, Result};

/// `MFD_EXEC` of `linux/memfd.h`: may be executed whatever `vm.memfd_noexec` says. Linux 6.3.
const MFD_EXEC: u32 = 0x10;

/// The seals of a finished file: no write, no change of length, no change of seals.
fn all_seals() -> SealFlag {
    SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

/// Makes a sealed file of `bytes`, read position 0. `name` is shown in `/proc/PID/fd`.
///
/// # Errors
///
/// What `memfd_create`, `write` and `fcntl` say: `EMFILE`, `ENOMEM`, `ENOSPC`.
pub fn sealed(name: &CStr, bytes: &[u8]) -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(name, flags)?);
    file.write_all(bytes).map_err(errno)?;
    seal(file)
}

/// Copies an executable into a sealed memfd that can be executed.
///
/// # Errors
///
/// As [`sealed`], and what reading `source` says.
pub fn sealed_executable(name: &CStr, source: &mut File) -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let executable = flags | MFdFlags::from_bits_retain(MFD_EXEC);
    let memfd = match memfd_create(name, executable) {
        Err(Errno::EINVAL) => memfd_create(name, flags)?,
        made => made?,
    };
    let mut file = File::from(memfd);
    std::io::copy(source, &mut file).map_err(errno)?;
    seal(file)
}

/// Whether a file is a memfd that nobody can change any more. A file that cannot be sealed is not.
pub fn is_sealed(file: impl AsFd) -> bool {
    let wanted = all_seals().bits();
    matches!(fcntl(file, FcntlArg::F_GET_SEALS), Ok(seals) if seals & wanted == wanted)
}

fn seal(mut file: File) -> Result<OwnedFd> {
    file.rewind().map_err(errno)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(all_seals()))?;
    Ok(file.into())
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_sealed_file_reads_back_and_refuses_writes() {
        let mut file = File::from(sealed(c"test", b"plan").unwrap());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "plan");
        assert!(is_sealed(&file));
        assert!(file.write_all(b"x").is_err());
    }

    #[test]
    fn an_ordinary_file_is_not_sealed() {
        assert!(!is_sealed(File::open("/proc/self/exe").unwrap()));
    }
}
