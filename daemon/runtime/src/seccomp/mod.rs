//! Seccomp: Docker's default profile, and a compiler of profiles to the kernel's filters.
//!
//! [`default_profile`] is what a container's spec carries, [`default_filter`] the same compiled,
//! once. [`compile`] takes any profile of the runtime spec; its results are kept, so that a
//! container that starts often pays once.
//!
//! `profile` is the table, `arch` knows system calls by name, `policy` turns a profile into
//! intervals of numbers, `compile` into instructions, `bpf` writes those. Nothing here installs a
//! filter.

mod arch;
mod bpf;
mod compile;
mod error;
mod policy;
mod profile;
#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use oci_spec::runtime::LinuxSeccomp;

pub use bpf::INSTRUCTIONS_MAX;
pub use error::Error;
pub use policy::ERRNO_MAX;

/// How many compiled profiles are kept. A user has few profiles; one of them takes some 20 KiB.
const CACHE_ENTRIES_MAX: usize = 16;

/// A profile and its filter.
#[derive(Debug)]
struct Compiled {
    hash: u64,
    profile: LinuxSeccomp,
    filter: Arc<[u8]>,
}

/// The profiles compiled last, the oldest first.
static CACHE: Mutex<Vec<Compiled>> = Mutex::new(Vec::new());

/// Docker's default profile for this machine and a container's default capabilities.
pub fn default_profile() -> LinuxSeccomp {
    profile::profile(arch::Machine::NATIVE)
}

/// The filter of [`default_profile`], compiled at the first call: an array of `struct sock_filter`
/// in native byte order.
pub fn default_filter() -> &'static [u8] {
    static FILTER: LazyLock<Vec<u8>> = LazyLock::new(|| {
        #[expect(
            clippy::expect_used,
            reason = "a constant; compiled by this module's tests"
        )]
        compile::compile(&default_profile(), arch::Machine::NATIVE).expect("the default compiles")
    });
    &FILTER
}

/// Compiles a profile for this machine, or returns what it compiled to before.
///
/// Names of system calls that this machine does not have are skipped, and architectures that it
/// does not run ignored. A process that calls through an interface outside the profile's
/// `architectures` is killed; the machine's own 64-bit one is always inside.
///
/// # Errors
/// [`Error`]: an action that nothing would answer, an errno or argument out of range, a setting
/// that the installed filter would lack, or too many rules.
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>, Error> {
    let mut hasher = DefaultHasher::new();
    // The form that a spec is kept in, and the only one that hashes.
    serde_json::to_string(profile)
        .unwrap_or_default()
        .hash(&mut hasher);
    let hash = hasher.finish();
    let known = cache()
        .iter()
        .find(|c| c.hash == hash && c.profile == *profile)
        .map(|c| c.filter.clone());
    if let Some(filter) = known {
        return Ok(filter.to_vec());
    }
    let filter = compile::compile(profile, arch::Machine::NATIVE)?;
    let mut cache = cache();
    if cache.len() >= CACHE_ENTRIES_MAX {
        cache.remove(0);
    }
    cache.push(Compiled {
        hash,
        profile: profile.clone(),
        filter: filter.as_slice().into(),
    });
    Ok(filter)
}

/// The cache; whatever a panic left in it is whole, since entries are only pushed and removed.
fn cache() -> std::sync::MutexGuard<'static, Vec<Compiled>> {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}
