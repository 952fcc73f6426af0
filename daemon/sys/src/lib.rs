//! System calls for rcd, and the only unsafe code in it.
//!
//! One safe wrapper for each call that the standard library and nix lack, or do with something
//! extra that would harm here. Descriptors go in as borrowed and come out as owned values, always
//! close-on-exec. A wrapper decides nothing and names no container: it reports the kernel's answer as
//! an [`Errno`], and the caller says what it was for. It repeats a call only where it says so: one
//! that a signal interrupted, or a look-up that raced with a rename.

pub mod clone;
pub mod creds;
pub mod error;
pub mod failpoint;
pub mod fd;
pub mod memfd;
pub mod mount;
pub mod netns;
pub mod openat2;
pub mod pidfd;
pub mod process;
pub mod pty;
pub mod scm;
pub mod seccomp;
pub mod userns;
pub mod xattr;

pub use error::{Errno, Result};
