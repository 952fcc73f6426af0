//! What an image, a plan or a program may not do.

use std::fs;
use std::os::unix::fs::symlink;

use rcd_init::plan::{MountFlags, Rlimit, Rootfs};
use rcd_init::protocol::Step;

use crate::harness::{Stage, bind};

#[test]
fn what_docker_hides_is_hidden_and_what_it_protects_is_read_only() {
    let Some(mut stage) = Stage::new("masks") else {
        return;
    };
    let outcome = stage.script(
        "ls -A /sys/firmware /proc/scsi /proc/acpi; wc -c < /proc/keys; wc -c < /proc/timer_list; \
         test ! -e /proc/kcore || stat -c %t:%T /proc/kcore; \
         touch /proc/sys/kernel/hostname /sys/x /sys/fs/cgroup/x /sys/firmware/x 2>&1; \
         mount -o remount,rw /proc/sys 2>&1; test ! -e /proc/sysrq-trigger || test ! -w /proc/sysrq-trigger && echo kept",
    );
    assert_eq!(outcome.failure, None);
    for part in [
        "\n0\n0\n",
        "/proc/sys/kernel/hostname: Read-only",
        "/sys/x: Read-only",
        "/sys/fs/cgroup/x: Read-only",
        "/sys/firmware/x: Read-only",
        "permission denied (are you root?)",
    ] {
        assert!(
            outcome.out.contains(part),
            "no {part:?} in:\n{}",
            outcome.out
        );
    }
    assert!(outcome.out.ends_with("kept\n"), "{}", outcome.out);
}

#[test]
fn no_descriptor_but_three_reaches_the_program() {
    let Some(mut stage) = Stage::new("leaks") else {
        return;
    };
    stage.init.process.argv = ["ls", "/proc/self/fd"].map(str::to_owned).to_vec();
    // The fourth is the directory that ls reads.
    assert_eq!(stage.run().out, "0\n1\n2\n3\n");
    let outcome = stage.script("readlink /proc/$$/fd/0; readlink /proc/$$/cwd");
    assert_eq!(outcome.out, "/dev/null\n/\n");
}

#[test]
fn passwd_files_that_are_no_files_are_refused() {
    for (name, setup) in [("a directory", false), ("a fifo", true)] {
        let Some(mut stage) = Stage::new(&name.replace(' ', "-")) else {
            return;
        };
        let passwd = stage.lower("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        if setup {
            nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRUSR).unwrap();
        } else {
            fs::create_dir(&passwd).unwrap();
        }
        assert_eq!(stage.fails(Step::User).object, "/etc/passwd", "{name}");
    }
}

#[test]
fn links_in_the_image_lead_nowhere_else() {
    let Some(mut stage) = Stage::new("links") else {
        return;
    };
    let outside = stage.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("passwd"), "root:x:0:0::/stolen:/\n").unwrap();
    fs::write(stage.dir.join("secret"), "bound").unwrap();
    let up = "../../../../../../../..";
    symlink("/tmp", stage.lower("dev")).unwrap();
    symlink(format!("{up}{}", outside.display()), stage.lower("escape")).unwrap();
    symlink(&outside, stage.lower("escape2")).unwrap();
    fs::remove_file(stage.lower("etc/passwd")).unwrap();
    symlink(outside.join("passwd"), stage.lower("etc/passwd")).unwrap();
    let secret = stage.dir.join("secret");
    for target in ["/escape/file", "/escape2/deep/file", "/../../../../top"] {
        stage
            .init
            .mounts
            .push(bind(&secret, target, MountFlags::default()));
    }
    let outcome = stage.script(
        "cat /escape/file /escape2/deep/file /top; echo; echo $HOME; ls /tmp; echo x > /dev/null",
    );
    assert_eq!(outcome.failure, None);
    assert!(
        outcome.out.starts_with("boundboundbound\n/\n"),
        "{}",
        outcome.out
    );
    assert!(
        outcome.out.contains("urandom"),
        "the devices are where the link leads: {}",
        outcome.out
    );
    let left: Vec<_> = fs::read_dir(&outside).unwrap().collect();
    assert_eq!(left.len(), 1, "something was made outside the root");
}

#[test]
fn a_dev_that_leads_into_proc_is_refused() {
    let Some(mut stage) = Stage::new("dev-in-proc") else {
        return;
    };
    symlink("/proc", stage.lower("dev")).unwrap();
    assert_eq!(stage.fails(Step::Mount).object, "/dev");
}

#[test]
fn limits_settings_layers_and_filters_that_cannot_be_are_refused() {
    let Some(mut stage) = Stage::new("refused") else {
        return;
    };
    let good = stage.init.clone();
    // RLIMIT_CORE
    stage.init.process.rlimits = vec![Rlimit {
        resource: 4,
        soft: 0,
        hard: 0,
    }];
    assert_eq!(stage.script("ulimit -c").out, "0\n");
    stage.init.process.rlimits = vec![Rlimit {
        resource: 99,
        soft: 0,
        hard: 0,
    }];
    stage.fails(Step::Rlimit);

    stage.init = good.clone();
    stage.init.sysctls = vec![("kernel.panic".into(), "1".into())];
    assert_eq!(stage.fails(Step::Sysctl).object, "kernel.panic");

    stage.init = good.clone();
    stage.init.process.seccomp = vec![0; 8];
    stage.fails(Step::Seccomp);

    stage.init = good.clone();
    stage.init.devices.push("/etc/passwd".into());
    assert_eq!(stage.fails(Step::Device).object, "/etc/passwd");

    stage.init = good;
    let upper = stage.dir.join("lower").to_str().unwrap().to_owned();
    stage.init.rootfs = Rootfs::Overlay {
        lowers: vec![upper.clone()],
        upper,
        work: "/proc".into(),
        volatile: false,
    };
    assert!(stage.fails(Step::Rootfs).detail.contains("overlay"));
}

#[test]
fn an_image_that_plays_procfs_cannot_hold_an_error_up() {
    let Some(mut stage) = Stage::new("false-proc") else {
        return;
    };
    // Reading it would wait for a writer that never comes.
    fs::create_dir_all(stage.lower("proc/self")).unwrap();
    nix::unistd::mkfifo(
        &stage.lower("proc/self/uid_map"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    stage.init.mounts.retain(|mount| mount.target != "/proc");
    stage.init.sysctls.clear();
    stage.init.process.user = "4000000000".into();
    assert!(stage.fails(Step::User).detail.contains("users ;"));
}

#[test]
fn a_plan_that_is_no_plan_ends_the_child_alone() {
    let Some(mut stage) = Stage::new("garbage") else {
        return;
    };
    stage.init.process.argv = vec!["a\0b".into()];
    stage.fails(Step::Exec);
    stage.init.process.argv = Vec::new();
    stage.fails(Step::Exec);
}
