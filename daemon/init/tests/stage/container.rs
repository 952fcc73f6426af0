//! What a container is made of: mounts, devices, layers, settings.

use std::fs;

use rcd_init::plan::{MountFlags, Rootfs};
use rcd_init::protocol::Step;

use crate::harness::{Stage, bind, filesystem};

#[test]
fn a_container_has_its_mounts_devices_and_rights() {
    let Some(mut stage) = Stage::new("whole") else {
        return;
    };
    let outcome = stage.script(
        "hostname; pwd; ls -l /dev; cat /proc/mounts; grep -E 'Cap|Seccomp:|NoNewPrivs|Sig' \
         /proc/self/status; cat /proc/self/cgroup; echo out >> /dev/stdout; umask; id; \
         cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start; env; \
         readlink /proc/self/exe; head -c 4 /dev/zero | wc -c",
    );
    assert_eq!(outcome.failure, None);
    for part in [
        "staged\n/\n",
        "CapBnd:\t00000000a80425fb",
        "CapEff:\t00000000a80425fb",
        "CapPrm:\t00000000a80425fb",
        "CapInh:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "Seccomp:\t2",
        "NoNewPrivs:\t0",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        "0::/\n",
        "out\n0022\n",
        "uid=0(root) gid=0(root) groups=0(root)",
        "500\n0\n",
        "HOME=/root\n",
        "\n/bin/busybox\n4\n",
        "stdout -> /proc/self/fd/1",
        "ptmx -> pts/ptmx",
        "1,   3",
        "tmpfs /dev tmpfs rw,nosuid",
        "cgroup2 ro",
        "sysfs ro,nosuid,nodev,noexec",
    ] {
        assert!(
            outcome.out.contains(part),
            "no {part:?} in:\n{}",
            outcome.out
        );
    }
}

#[test]
fn binds_are_restricted() {
    let Some(mut stage) = Stage::new("binds") else {
        return;
    };
    let source = stage.dir.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "text").unwrap();
    let readonly = MountFlags {
        readonly: true,
        noexec: true,
        ..MountFlags::default()
    };
    stage.init.mounts.push(bind(&source, "/ro", readonly));
    stage
        .init
        .mounts
        .push(bind(&source, "/rw", MountFlags::default()));
    let outcome =
        stage.script("cat /ro/file; touch /ro/x 2>&1; touch /rw/y; grep /ro /proc/mounts");
    assert!(
        outcome
            .out
            .starts_with("texttouch: /ro/x: Read-only file system\n"),
        "{}",
        outcome.out
    );
    assert!(outcome.out.contains(" ro,noexec"), "{}", outcome.out);
    assert!(source.join("y").exists());
}

#[test]
fn mounts_that_cannot_be_are_named_with_the_reason() {
    let Some(mut stage) = Stage::new("bad-mounts") else {
        return;
    };
    let source = stage.dir.clone();
    let readonly = MountFlags {
        readonly: true,
        ..MountFlags::default()
    };
    let mounts = stage.init.mounts.clone();
    let bad = [
        (
            bind(&stage.dir.join("missing"), "/x", readonly),
            "missing",
            "does not exist",
        ),
        (
            bind(&source, "/bin/busybox", readonly),
            "/bin/busybox",
            "directory",
        ),
        (bind(&source, "/", readonly), "/", "root"),
        (
            filesystem("/x", "nosuch", &[], readonly),
            "/x",
            "no such file system",
        ),
        (
            filesystem("/x", "tmpfs", &[("colour", "red")], readonly),
            "/x",
            "colour",
        ),
        (
            filesystem("/x", "tmpfs", &[("gid", "99999")], readonly),
            "/x",
            "gid",
        ),
    ];
    for (mount, object, detail) in bad {
        stage.init.mounts = mounts.clone();
        stage.init.mounts.push(mount);
        let failure = stage.fails(Step::Mount);
        assert!(failure.object.ends_with(object), "{failure:?}");
        assert!(failure.detail.contains(detail), "{failure:?}");
    }
}

#[test]
fn many_layers_with_odd_names_make_one_root() {
    let Some(mut stage) = Stage::new("layers") else {
        return;
    };
    let layers: Vec<String> = (0..127)
        .map(|number| {
            let layer = stage
                .dir
                .join(format!("layer :,\\\"{number}{}", "x".repeat(100)));
            fs::create_dir(&layer).unwrap();
            fs::write(layer.join(format!("file{number}")), "").unwrap();
            layer.to_str().unwrap().to_owned()
        })
        .collect();
    if let Rootfs::Overlay {
        lowers, volatile, ..
    } = &mut stage.init.rootfs
    {
        lowers.splice(0..0, layers);
        *volatile = true;
    }
    assert_eq!(stage.script("ls -d /file* | wc -l").out, "127\n");
    let again = stage.fails(Step::Rootfs);
    assert!(again.detail.contains("volatile"), "{again:?}");
}

#[test]
fn a_directory_can_be_the_root() {
    let Some(mut stage) = Stage::new("directory") else {
        return;
    };
    let source = stage.lower("").to_str().unwrap().to_owned();
    stage.init.rootfs = Rootfs::Directory { source };
    assert_eq!(stage.script("echo hello; touch /made").out, "hello\n");
    assert!(stage.lower("made").exists());
}
