//! Prints the OCI runtime spec that a container gets here, as JSON: for looking at, and for a bundle
//! with which another runtime does equal work.
//!
//! `spec ID ETC PROGRAM [ARGUMENT…]`: a container of that id and host name, with `resolv.conf`,
//! `hostname` and `hosts` of the directory ETC, without a network. Two things differ from a start
//! here: the default seccomp profile is written out (it is compiled beforehand otherwise), and `/` is
//! the directory `rootfs` of the bundle, because a spec has no place for layers. User namespace and
//! id maps are not in it: here they belong to the holder, and a bundle needs its user's.

use std::{io::Write, path::PathBuf, time::Duration};

use rcd_runtime::{
    ContainerOptions, EtcFiles, Network, ProcessOptions, RootfsOptions, seccomp, spec,
};

/// What the engine gives a process whose image sets none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const SIGTERM: i32 = 15;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(id), Some(etc)) = (arguments.next(), arguments.next()) else {
        return Err("usage: spec ID ETC PROGRAM [ARGUMENT...]".into());
    };
    let mut spec = spec(&options(id, &PathBuf::from(etc), arguments.collect()));
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(Some(seccomp::default_profile()));
    }
    writeln!(
        std::io::stdout(),
        "{}",
        serde_json::to_string_pretty(&spec)?
    )?;
    Ok(())
}

fn options(id: String, etc: &std::path::Path, argv: Vec<String>) -> ContainerOptions {
    ContainerOptions {
        hostname: id.clone(),
        rootfs: RootfsOptions {
            lowers: Vec::new(),
            upper: PathBuf::new(),
            work: PathBuf::new(),
            volatile: false,
        },
        readonly_root: false,
        process: ProcessOptions {
            argv,
            env: vec![PATH.to_owned(), format!("HOSTNAME={id}")],
            cwd: "/".into(),
            create_cwd: false,
            user: String::new(),
            groups: Vec::new(),
            terminal: None,
        },
        binds: Vec::new(),
        files: EtcFiles {
            resolv_conf: etc.join("resolv.conf"),
            hostname: etc.join("hostname"),
            hosts: etc.join("hosts"),
        },
        network: Network::None,
        open_stdin: false,
        stop_signal: SIGTERM,
        stop_timeout: Duration::from_secs(10),
        id,
    }
}
