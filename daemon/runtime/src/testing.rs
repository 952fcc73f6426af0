//! Values that several tests start from.

use std::time::Duration;

use crate::options::{ContainerOptions, EtcFiles, Network, ProcessOptions, RootfsOptions};

/// A plausible container `c1` that runs `/bin/true`.
pub(crate) fn container() -> ContainerOptions {
    ContainerOptions {
        id: "c1".into(),
        hostname: "c1".into(),
        rootfs: RootfsOptions {
            lowers: vec!["/data/top".into(), "/data/base".into()],
            upper: "/data/c1/upper".into(),
            work: "/data/c1/work".into(),
            volatile: false,
        },
        readonly_root: false,
        process: process(),
        binds: Vec::new(),
        files: EtcFiles {
            resolv_conf: "/data/c1/resolv.conf".into(),
            hostname: "/data/c1/hostname".into(),
            hosts: "/data/c1/hosts".into(),
        },
        network: Network::None,
        open_stdin: false,
        stop_signal: 15,
        stop_timeout: Duration::from_secs(10),
    }
}

/// `/bin/true` as root in `/`.
pub(crate) fn process() -> ProcessOptions {
    ProcessOptions {
        argv: vec!["/bin/true".into()],
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        create_cwd: false,
        user: String::new(),
        groups: Vec::new(),
        terminal: None,
    }
}
