//! The default filter in the kernel: a copy of this test program installs it and tries calls.

use std::process::Command;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::super::default_filter;

/// Tells the copy that it is one.
const CHILD: &str = "RCD_TEST_SECCOMP_CHILD";

#[test]
fn the_kernel_enforces_the_default_filter() {
    if std::env::var_os(CHILD).is_some() {
        return under_the_filter();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "seccomp::tests::kernel::the_kernel_enforces_the_default_filter",
        ])
        .args(["--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{output:?}"
    );
}

fn under_the_filter() {
    nix::sys::prctl::set_no_new_privs().unwrap();
    rcd_sys::seccomp::install(default_filter()).unwrap();
    let open = |family| socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    assert!(open(AddressFamily::Unix).is_ok());
    assert_eq!(open(AddressFamily::Vsock).unwrap_err(), Errno::EPERM);
    assert_eq!(open(AddressFamily::Alg).unwrap_err(), Errno::EPERM);
    assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::EPERM));
    // The C library asks for clone3 first, hears ENOSYS, and takes clone.
    assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
    let status = Command::new("/bin/true").status().unwrap();
    assert!(status.success());
}
