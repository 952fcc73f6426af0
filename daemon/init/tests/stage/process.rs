//! The process in it: user, rights, terminal, working directory, program, exec.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcd_init::plan::{MountFlags, TerminalSize};
use rcd_init::protocol::Step;

use crate::harness::{Stage, bind};

#[test]
fn a_terminal_is_the_containers_own() {
    let Some(mut stage) = Stage::new("terminal") else {
        return;
    };
    stage.init.process.terminal = Some(TerminalSize {
        rows: 33,
        columns: 121,
    });
    let outcome = stage.script(
        "tty; stty size; stat -c %t:%T /dev/console /dev/pts/0; ls -l /dev/pts; echo to-console > \
         /dev/console; echo to-tty > /dev/tty; sleep 100 & kill %1; set -m; echo job-control=$?; ls /proc/self/fd",
    );
    assert_eq!(outcome.failure, None);
    for part in [
        "/dev/pts/0\r\n33 121\r\n88:0\r\n88:0",
        "to-console",
        "to-tty",
        "job-control=0",
        "root     5 ",
    ] {
        assert!(
            outcome.out.contains(part),
            "no {part:?} in:\n{}",
            outcome.out
        );
    }
}

#[test]
fn users_get_their_ids_groups_home_and_no_capability() {
    let Some(mut stage) = Stage::new("users") else {
        return;
    };
    let script = "id; echo $HOME; grep -E 'CapEff|CapPrm|CapBnd|Groups' /proc/self/status; \
        echo mine >> /dev/stdout; touch /x 2>&1";
    stage.init.process.user = "app".into();
    stage.init.process.groups = vec!["77".into()];
    let outcome = stage.script(script);
    assert_eq!(outcome.failure, None);
    for part in [
        "uid=1000(app) gid=1001(app) groups=63(audio),77,1001(app)",
        "\n/srv\n",
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapBnd:\t00000000a80425fb",
        "mine",
        "/x: Permission denied",
    ] {
        assert!(
            outcome.out.contains(part),
            "no {part:?} in:\n{}",
            outcome.out
        );
    }
    stage.init.process.user = "1234:4321".into();
    stage.init.process.groups.clear();
    assert!(
        stage
            .script(script)
            .out
            .starts_with("uid=1234 gid=4321 groups=4321\n/\n")
    );

    stage.init.process.user = "ghost".into();
    assert_eq!(stage.fails(Step::User).object, "ghost");
    stage.init.process.user = "4000000000".into();
    let failure = stage.fails(Step::User);
    assert!(
        failure.detail.contains("users 0 to 0, 1 to 65535"),
        "{failure:?}"
    );
}

#[test]
fn ambient_capabilities_reach_an_ordinary_user() {
    let Some(mut stage) = Stage::new("ambient") else {
        return;
    };
    stage.init.process.user = "1000".into();
    // CAP_NET_BIND_SERVICE
    stage.init.process.capabilities.inheritable = 1 << 10;
    stage.init.process.capabilities.ambient = 1 << 10;
    let out = stage.script("grep Cap /proc/self/status").out;
    assert!(out.contains("CapEff:\t0000000000000400"), "{out}");
    assert!(out.contains("CapAmb:\t0000000000000400"), "{out}");
}

#[test]
fn working_directories_are_entered_made_or_refused() {
    let Some(mut stage) = Stage::new("cwd") else {
        return;
    };
    stage.init.process.argv = vec!["pwd".into()];
    stage.init.process.cwd = "/tmp".into();
    assert_eq!(stage.run().out, "/tmp\n");

    stage.init.process.cwd = "/made/here".into();
    let failure = stage.fails(Step::WorkingDirectory);
    assert_eq!(
        (failure.errno, failure.object.as_str()),
        (nix::errno::Errno::ENOENT as i32, "/made/here")
    );
    for cwd in [
        "/proc/self/fd/7",
        "/proc/self/fd/3/..",
        "relative",
        "/bin/busybox",
    ] {
        stage.init.process.cwd = cwd.into();
        stage.fails(Step::WorkingDirectory);
    }
    stage.init.process.cwd = "/made/here".into();
    stage.init.process.create_cwd = true;
    stage.init.readonly_root = true;
    let outcome = stage.script("pwd; touch /made/here/x 2>&1; touch /dev/shm/ok && echo writable");
    assert_eq!(
        outcome.out,
        "/made/here\ntouch: /made/here/x: Read-only file system\nwritable\n"
    );
}

#[test]
fn programs_that_do_not_run_say_why() {
    let Some(mut stage) = Stage::new("programs") else {
        return;
    };
    let write = |name: &str, text: &str, mode: u32| {
        let path = stage.lower(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("bin/plain", "echo hi", 0o644);
    write("bin/headless", "echo hi", 0o755);
    write("bin/orphan", "#!/usr/bin/python -E\n", 0o755);
    write("bin/broken", "\x7fELF\x01", 0o755);
    // A program of this machine with a loader that the image lacks.
    fs::copy(std::env::current_exe().unwrap(), stage.lower("bin/dynamic")).unwrap();
    use nix::errno::Errno::{EACCES, ENOENT, ENOEXEC};
    let cases = [
        ("nothing", ENOENT, "PATH"),
        ("/no/such", ENOENT, "no such file"),
        ("/tmp", EACCES, "directory"),
        ("plain", EACCES, "not executable"),
        ("headless", ENOEXEC, "#!"),
        ("orphan", ENOENT, "/usr/bin/python"),
        ("broken", ENOEXEC, "machine"),
        ("dynamic", ENOENT, "loader /lib"),
    ];
    for (program, errno, word) in cases {
        stage.init.process.argv = vec![program.into()];
        let failure = stage.fails(Step::Exec);
        assert_eq!(failure.errno, errno as i32, "{failure:?}");
        assert!(failure.detail.contains(word), "{failure:?}");
    }
}

#[test]
fn an_exec_joins_the_container() {
    let Some(mut stage) = Stage::new("exec") else {
        return;
    };
    let mut exec = stage.init.process.clone();
    let script = "hostname; tty; readlink /proc/self/ns/net; readlink /proc/1/ns/net; id -u; pwd; \
        ls /proc/self/fd; grep -E 'CapEff|Seccomp:' /proc/self/status";
    exec.argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    exec.cwd = "/tmp".into();
    exec.terminal = Some(TerminalSize::default());
    stage.exec = Some(exec.clone());
    let outcome = stage.script("exec sleep 1000");
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.code, 0);
    let lines: Vec<_> = outcome.out.lines().map(str::trim_end).collect();
    assert_eq!(lines[..2], ["staged", "/dev/pts/0"], "{}", outcome.out);
    assert_eq!(lines[2], lines[3]);
    assert_eq!(lines[4..6], ["0", "/tmp"]);
    assert!(
        outcome.out.contains("CapEff:\t00000000a80425fb"),
        "{}",
        outcome.out
    );

    exec.argv = vec!["nothing".into()];
    stage.exec = Some(exec);
    stage.script("exec sleep 1000");
    assert_eq!(
        stage.fails(Step::Exec).errno,
        nix::errno::Errno::ENOENT as i32
    );
}

#[test]
fn an_exec_joins_a_container_on_the_hosts_network() {
    let Some(mut stage) = Stage::new("host-network") else {
        return;
    };
    fs::write(stage.dir.join("host-network"), "").unwrap();
    let failure = stage.fails(Step::Mount);
    assert!(failure.detail.contains("network namespace"), "{failure:?}");

    let readonly = MountFlags {
        readonly: true,
        ..MountFlags::default()
    };
    stage.init.sysctls.clear();
    stage.init.mounts[3] = bind(Path::new("/sys"), "/sys", readonly);
    let mut exec = stage.init.process.clone();
    exec.argv = ["hostname"].map(str::to_owned).to_vec();
    exec.user = "app".into();
    stage.exec = Some(exec);
    let outcome = stage.script("exec sleep 1000");
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.out, "staged\n");
}

#[test]
fn a_terminal_belongs_to_its_user() {
    let Some(mut stage) = Stage::new("terminal-user") else {
        return;
    };
    stage.init.process.terminal = Some(TerminalSize::default());
    stage.init.process.user = "app".into();
    stage.init.process.no_new_privs = true;
    let script = "stat -c %U:%g:%a /dev/pts/0 /dev/console; echo x > /dev/console; echo y > /dev/tty; \
        grep -E 'NoNew|Seccomp:' /proc/self/status";
    let out = stage.script(script).out.replace('\r', "");
    assert_eq!(
        out,
        "app:5:620\napp:5:620\nx\ny\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    );
}
