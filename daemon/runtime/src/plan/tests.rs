//! Tables of specs, refused or compiled.

use oci_spec::runtime::{PosixRlimitBuilder, PosixRlimitType, Process, Spec};
use rcd_init::plan::{MountFlags, MountKind, ProcessPlan, Rlimit};
use serde_json::{Value, json};

use super::*;
use crate::options::{BindOptions, Network};
use crate::testing;

const GID_MAX: u32 = 65_536;

fn init(o: &ContainerOptions) -> InitPlan {
    match compile(&crate::spec::spec(o), &Extras::new(o, GID_MAX))
        .unwrap()
        .plan
    {
        Plan::Init(plan) => *plan,
        Plan::Exec(_) => panic!("an exec plan"),
    }
}

/// The default container's spec with one JSON value put at `pointer`'s place.
fn changed(pointer: &str, value: Value) -> Result<Compiled, Error> {
    let o = testing::container();
    let mut json = serde_json::to_value(crate::spec::spec(&o)).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap()[key] = value;
    let spec: Spec = serde_json::from_value(json).unwrap();
    compile(&spec, &Extras::new(&o, GID_MAX))
}

#[test]
fn dockers_defaults_compile() {
    let plan = init(&testing::container());
    assert_eq!(plan.hostname.as_deref(), Some("c1"));
    assert_eq!(plan.process.capabilities.bounding, 0xa804_25fb);
    assert_eq!(plan.process.capabilities.effective, 0xa804_25fb);
    assert_eq!(plan.process.capabilities.inheritable, 0);
    assert_eq!(plan.process.user, "0");
    assert!(!plan.process.no_new_privs);
    assert!(plan.process.rlimits.is_empty());
    assert!(plan.masked_paths.iter().any(|p| p == "/proc/kcore"));
    assert!(plan.readonly_paths.iter().any(|p| p == "/proc/sys"));
    assert_eq!(plan.devices.len(), 6);
    let Rootfs::Overlay { lowers, .. } = plan.rootfs else {
        panic!("no overlay")
    };
    assert_eq!(lowers, ["/data/top", "/data/base"]);
}

#[test]
fn a_spec_without_a_profile_is_unconfined_unless_the_default_is_asked_for() {
    let o = testing::container();
    for default_seccomp in [true, false] {
        let extras = Extras {
            default_seccomp,
            ..Extras::new(&o, GID_MAX)
        };
        let Plan::Init(plan) = compile(&crate::spec::spec(&o), &extras).unwrap().plan else {
            panic!("an exec plan")
        };
        assert_eq!(plan.process.seccomp.is_empty(), !default_seccomp);
    }
}

#[test]
fn cgroup_becomes_cgroup2_and_flags_become_typed() {
    let plan = init(&testing::container());
    let mount = plan
        .mounts
        .iter()
        .find(|m| m.target == "/sys/fs/cgroup")
        .unwrap();
    let flags = MountFlags {
        readonly: true,
        nosuid: true,
        nodev: true,
        noexec: true,
    };
    assert_eq!(mount.flags, flags);
    let kind = MountKind::Filesystem {
        fstype: "cgroup2".into(),
        options: Vec::new(),
    };
    assert_eq!(mount.kind, kind);
}

#[test]
fn terminals_belong_to_group_5_only_where_it_is_mapped() {
    let o = testing::container();
    for (gid_max, expected) in [(0, false), (4, false), (5, true), (65_536, true)] {
        let compiled = compile(&crate::spec::spec(&o), &Extras::new(&o, gid_max)).unwrap();
        let Plan::Init(plan) = compiled.plan else {
            panic!("an exec plan")
        };
        let pts = plan.mounts.iter().find(|m| m.target == "/dev/pts").unwrap();
        let MountKind::Filesystem { options, .. } = &pts.kind else {
            panic!("a bind")
        };
        assert_eq!(
            options.iter().any(|(k, _)| k == "gid"),
            expected,
            "{gid_max}"
        );
    }
}

#[test]
fn binds_keep_source_recursion_and_access() {
    let mut o = testing::container();
    o.binds.push(BindOptions {
        source: "/home/u/src".into(),
        target: "/src".into(),
        read_only: true,
        recursive: true,
    });
    let plan = init(&o);
    let mount = plan.mounts.iter().find(|m| m.target == "/src").unwrap();
    assert_eq!(
        mount.kind,
        MountKind::Bind {
            source: "/home/u/src".into(),
            recursive: true
        }
    );
    assert!(mount.flags.readonly);
}

#[test]
fn namespaces_are_clone_flags() {
    let mut o = testing::container();
    for (network, expected) in [
        (Network::None, 0x6e02_0000_u64),
        (Network::Host, 0x2e02_0000),
    ] {
        o.network = network;
        let compiled = compile(&crate::spec::spec(&o), &Extras::new(&o, GID_MAX)).unwrap();
        assert_eq!(compiled.namespaces, expected, "{network:?}");
    }
}

fn check_refused(cases: &[(&str, Value, &str)]) {
    for (pointer, value, expected) in cases {
        match changed(pointer, value.clone()) {
            Ok(_) => assert_eq!(*expected, "ok", "{pointer}"),
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.contains(expected),
                    "{pointer}: `{text}` without `{expected}`"
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_honoured_for_linux_is_refused_by_name() {
    let hook = json!({"prestart": [{"path": "/bin/hook"}]});
    check_refused(&[
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/domainname", json!("x"), "domainname"),
        ("/hooks", hook, "hooks"),
        ("/vm", json!({"kernel": {"path": "/k"}}), "vm"),
        (
            "/linux/uidMappings",
            json!([{"hostID": 1, "containerID": 0, "size": 1}]),
            "uidMappings",
        ),
        (
            "/linux/resources",
            json!({"memory": {"limit": 1}}),
            "linux.resources",
        ),
        (
            "/linux/devices",
            json!([{"path": "/d", "type": "c", "major": 1, "minor": 3}]),
            "devices",
        ),
        (
            "/linux/rootfsPropagation",
            json!("shared"),
            "rootfsPropagation",
        ),
        ("/linux/mountLabel", json!("x"), "mountLabel"),
        ("/linux/cgroupsPath", json!("/elsewhere"), "cgroupsPath"),
        (
            "/linux/sysctl",
            json!({"vm.swappiness": "1"}),
            "linux.sysctl.vm.swappiness",
        ),
        ("/linux/sysctl", json!({"net./../x": "1"}), "linux.sysctl"),
        (
            "/linux/namespaces",
            json!([{"type": "pid"}]),
            "linux.namespaces",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "user"}]),
            "linux.namespaces: user",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "pid", "path": "/p"}]),
            "path of pid",
        ),
        (
            "/linux/maskedPaths",
            json!(["proc/kcore"]),
            "linux.maskedPaths",
        ),
    ]);
}

#[test]
fn what_cannot_be_honoured_for_a_process_or_a_mount_is_refused_by_name() {
    let bind = |options: Value| json!([{"destination": "/x", "type": "bind", "source": "/y", "options": options}]);
    check_refused(&[
        (
            "/process/apparmorProfile",
            json!("x"),
            "process.apparmorProfile",
        ),
        ("/process/selinuxLabel", json!("x"), "process.selinuxLabel"),
        ("/process/user/umask", json!(18), "process.user.umask"),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!(["a\0b"]), "process.args"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/oomScoreAdj", json!(5000), "process.oomScoreAdj"),
        (
            "/process/consoleSize",
            json!({"height": 70000, "width": 1}),
            "ok",
        ),
        ("/hostname", json!("x".repeat(65)), "hostname"),
        (
            "/mounts",
            bind(json!(["rbind", "rshared"])),
            "mounts[0].options `rshared`",
        ),
        (
            "/mounts",
            bind(json!(["bind", "mode=1"])),
            "mounts[0].options `mode`",
        ),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "ext4"}]),
            "mounts[0].type `ext4`",
        ),
        (
            "/mounts",
            json!([{"destination": "x", "type": "tmpfs"}]),
            "mounts[0].destination",
        ),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "bind"}]),
            "mounts[0].source",
        ),
    ]);
}

#[test]
fn sysctls_need_their_namespace() {
    let ipc = json!({"kernel.shmmax": "1", "fs.mqueue.msg_max": "2"});
    let Plan::Init(plan) = changed("/linux/sysctl", ipc).unwrap().plan else {
        panic!("exec")
    };
    assert_eq!(plan.sysctls.len(), 2);

    let mut o = testing::container();
    o.network = Network::Host;
    let mut spec = crate::spec::spec(&o);
    let net = [("net.core.somaxconn".to_owned(), "1".to_owned())];
    spec.linux_mut()
        .as_mut()
        .unwrap()
        .set_sysctl(Some(net.into_iter().collect()));
    let error = compile(&spec, &Extras::new(&o, GID_MAX)).unwrap_err();
    assert!(
        error.to_string().contains("needs a net namespace"),
        "{error}"
    );
}

#[test]
fn a_directory_is_a_root_too() {
    let o = testing::container();
    let mut spec = crate::spec::spec(&o);
    spec.root_mut()
        .as_mut()
        .unwrap()
        .set_path("/srv/root".into());
    let extras = Extras {
        layers: None,
        ..Extras::new(&o, GID_MAX)
    };
    let Plan::Init(plan) = compile(&spec, &extras).unwrap().plan else {
        panic!("exec")
    };
    assert_eq!(
        plan.rootfs,
        Rootfs::Directory {
            source: "/srv/root".into()
        }
    );
}

fn process(change: impl FnOnce(&mut Process)) -> Result<ProcessPlan, Error> {
    let mut process = crate::spec::process(&testing::process());
    change(&mut process);
    match compile_process(&process, &ProcessExtras::default())? {
        Plan::Exec(plan) => Ok(*plan),
        Plan::Init(_) => panic!("an init plan"),
    }
}

#[test]
fn ids_without_a_name_are_used_as_they_are() {
    let plan = process(|p| {
        p.user_mut()
            .set_uid(7)
            .set_gid(8)
            .set_username(None)
            .set_additional_gids(Some(vec![9]));
    });
    let plan = plan.unwrap();
    assert_eq!(plan.user, "7:8");
    assert_eq!(plan.groups, ["9"]);
}

#[test]
fn group_names_travel_beside_the_spec() {
    let mut o = testing::process();
    o.groups = vec!["audio".into(), "44".into()];
    let Plan::Exec(plan) =
        compile_process(&crate::spec::process(&o), &ProcessExtras::new(&o)).unwrap()
    else {
        panic!("an init plan")
    };
    assert_eq!(plan.groups, ["44", "audio"]);
}

#[test]
fn terminals_have_a_size() {
    let mut o = testing::process();
    o.terminal = Some((24, 80));
    let plan = compile_process(&crate::spec::process(&o), &ProcessExtras::default()).unwrap();
    let Plan::Exec(plan) = plan else {
        panic!("an init plan")
    };
    assert_eq!(plan.terminal.map(|t| (t.rows, t.columns)), Some((24, 80)));
}

#[test]
fn rlimits_have_the_kernels_numbers_and_order() {
    let limit = |soft: u64, hard: u64| {
        let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile);
        limit.soft(soft).hard(hard).build().unwrap()
    };
    let plan = process(|p| {
        p.set_rlimits(Some(vec![limit(1, 2)]));
    });
    assert_eq!(
        plan.unwrap().rlimits,
        [Rlimit {
            resource: 7,
            soft: 1,
            hard: 2
        }]
    );
    for bad in [vec![limit(2, 1)], vec![limit(1, 1), limit(1, 1)]] {
        let result = process(|p| {
            p.set_rlimits(Some(bad));
        });
        assert!(result.is_err());
    }
}

#[test]
fn a_plan_fits_its_bound_with_room() {
    let bytes = postcard::to_stdvec(&Plan::Init(Box::new(init(&testing::container())))).unwrap();
    assert!(bytes.len() < 64 << 10, "{} bytes", bytes.len());
}
