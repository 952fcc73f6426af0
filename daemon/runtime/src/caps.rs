//! Capabilities: names, the kernel's bits, and Docker's default set.
//!
//! Numbers are those of `include/uapi/linux/capability.h`; there are 41 of them in every kernel
//! since 5.9. Pure tables.

use oci_spec::runtime::{Capabilities, Capability};

/// How many capabilities this table knows (`CAP_LAST_CAP` + 1).
pub const CAPABILITY_COUNT: usize = 41;

/// Every capability, at the index of its bit.
const ALL: [Capability; CAPABILITY_COUNT] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// What Docker leaves a container by default: 14 capabilities, `0xa80425fb`.
pub const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// The bit number of a capability.
pub fn number(capability: Capability) -> u8 {
    // The table is complete (a test walks all names), so the fallback is never taken; 63 is a bit
    // that no kernel knows and that `capset` would refuse.
    ALL.iter()
        .position(|c| *c == capability)
        .and_then(|n| u8::try_from(n).ok())
        .unwrap_or(63)
}

/// The capability of a bit number.
pub fn from_number(number: u8) -> Option<Capability> {
    ALL.get(usize::from(number)).copied()
}

/// A set as the kernel's bit mask.
pub fn mask(set: &Capabilities) -> u64 {
    set.iter().fold(0, |mask, c| mask | 1 << number(*c))
}

/// The kernel's name, e.g. `CAP_SYS_ADMIN`.
pub fn name(capability: Capability) -> String {
    format!("CAP_{capability}")
}

/// A capability by name, in any case, with or without `CAP_`, as Docker's `--cap-add` takes it.
pub fn parse(text: &str) -> Option<Capability> {
    let upper = text.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_dockers_mask() {
        assert_eq!(mask(&DEFAULT.into_iter().collect()), 0xa804_25fb);
    }

    #[test]
    fn every_capability_round_trips_by_name_and_number() {
        for (bit, capability) in ALL.into_iter().enumerate() {
            let bit = u8::try_from(bit).unwrap();
            assert_eq!(number(capability), bit);
            assert_eq!(from_number(bit), Some(capability));
            assert_eq!(parse(&name(capability)), Some(capability));
            assert_eq!(
                parse(&capability.to_string().to_lowercase()),
                Some(capability)
            );
        }
        assert_eq!(from_number(41), None);
        assert_eq!(parse("CAP_EVERYTHING"), None);
    }

    #[test]
    fn names_have_the_numbers_of_the_kernel_header() {
        let cases = [
            ("CAP_CHOWN", 0),
            ("CAP_NET_ADMIN", 12),
            ("CAP_SYS_ADMIN", 21),
        ];
        let later = [
            ("CAP_SETFCAP", 31),
            ("CAP_SYSLOG", 34),
            ("CAP_CHECKPOINT_RESTORE", 40),
        ];
        for (text, bit) in cases.into_iter().chain(later) {
            assert_eq!(parse(text).map(number), Some(bit), "{text}");
        }
    }
}
