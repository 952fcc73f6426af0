//! Installation of a seccomp filter (seccomp(2)).

use nix::errno::Errno;

/// Size of one BPF instruction, `struct sock_filter`.
const INSTRUCTION_BYTES: usize = size_of::<libc::sock_filter>();

/// The longest filter that the kernel takes (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;

/// Installs a filter on the calling thread, for good. It needs CAP_SYS_ADMIN in the user namespace
/// or `no_new_privs`.
///
/// `filter` is an array of `struct sock_filter` in native byte order.
///
/// # Errors
/// EINVAL for a filter that is empty, too long, no whole number of instructions, or that the kernel
/// does not accept; EACCES without the privilege.
pub fn install(filter: &[u8]) -> nix::Result<()> {
    let (instructions, rest) = filter.as_chunks::<INSTRUCTION_BYTES>();
    if instructions.is_empty() || !rest.is_empty() || instructions.len() > INSTRUCTIONS_MAX {
        return Err(Errno::EINVAL);
    }
    // Copied for alignment: bytes out of a message have none.
    let mut program: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let prog = libc::sock_fprog {
        len: length,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `prog` points to `len` live instructions; the kernel copies and checks them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const prog,
        )
    };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_cut_off_is_refused() {
        assert_eq!(install(&[]).unwrap_err(), Errno::EINVAL);
        assert_eq!(install(&[0; 7]).unwrap_err(), Errno::EINVAL);
        assert_eq!(
            install(&vec![0; INSTRUCTION_BYTES * 4097]).unwrap_err(),
            Errno::EINVAL
        );
    }
}
