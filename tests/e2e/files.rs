//! What a container finds in its file system, and what it does not.

use std::fs;

use rcd_tests::{Daemon, Environment, environment::write, harness::Verdict};

use crate::support::{assert_code, busybox};

pub(crate) fn bind_mounts_show_host_files(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let source = rcd.sandbox().home.join("source");
    write(&source.join("file"), "from the host\n")?;
    let volume = format!("{}:/data", source.display());
    let script = "cat /data/file; echo back >/data/new";
    let output = rcd.rc_ok(&["run", "--rm", "-v", &volume, "busybox", "sh", "-c", script])?;
    assert_eq!(output, "from the host");
    assert_eq!(fs::read_to_string(source.join("new")).unwrap(), "back\n");
    let relative = [
        "run",
        "--rm",
        "-v",
        "./source:/data",
        "busybox",
        "cat",
        "/data/file",
    ];
    assert_eq!(rcd.rc_ok(&relative)?, "from the host");
    Ok(())
}

pub(crate) fn a_read_only_bind_refuses_writes(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let source = rcd.sandbox().home.join("source");
    write(&source.join("file"), "kept\n")?;
    let volume = format!("{}:/data:ro", source.display());
    let script = "echo x >/data/file || mount -o remount,rw,bind /data || exit 9";
    let output = rcd.rc(&["run", "--rm", "-v", &volume, "busybox", "sh", "-c", script]);
    assert_code(&output, 9);
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "kept\n");
    Ok(())
}

pub(crate) fn a_read_only_root_refuses_writes(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script = "touch /file 2>/dev/null && exit 9; touch /dev/shm/file && echo done";
    let output = rcd.rc_ok(&["run", "--rm", "--read-only", "busybox", "sh", "-c", script])?;
    assert_eq!(output, "done");
    Ok(())
}

pub(crate) fn changes_survive_a_restart_of_the_container(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script = "echo x >>/count; rm -f /etc/not-a-program; wc -l </count";
    rcd.rc_ok(&["run", "--name", "main", "busybox", "sh", "-c", script])?;
    assert_eq!(rcd.rc_ok(&["start", "-a", "main"])?, "2");
    Ok(())
}

pub(crate) fn etc_files_are_made(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script =
        "cat /etc/hostname; grep -c localhost /etc/hosts; test -f /etc/resolv.conf && echo ok";
    let output = rcd.rc_ok(&["run", "--rm", "-h", "box", "busybox", "sh", "-c", script])?;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((lines[0], lines[2]), ("box", "ok"));
    assert_ne!(lines[1], "0", "no localhost in /etc/hosts");
    Ok(())
}

pub(crate) fn host_paths_are_hidden(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let socket = rcd.sandbox().socket();
    let script = format!(
        "ls /; test -e {} && exit 9; cat /proc/self/mountinfo",
        socket.display()
    );
    let output = rcd.rc_ok(&["run", "--rm", "busybox", "sh", "-c", &script])?;
    let root: Vec<&str> = output
        .lines()
        .take_while(|line| !line.contains(' '))
        .collect();
    for entry in root {
        let known = [
            "bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "var",
        ];
        assert!(known.contains(&entry), "/{entry} is not the image's");
    }
    Ok(())
}

pub(crate) fn proc_and_sys_are_masked(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script = "cat /proc/kcore 2>/dev/null | wc -c; echo 1 >/proc/sys/kernel/panic || echo refused; \
                  mkdir /sys/x 2>/dev/null || echo read-only; \
                  mount -t tmpfs none /tmp 2>/dev/null || echo no-mount";
    let output = rcd.rc(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert_code(&output, 0);
    assert_eq!(output.stdout, "0\nrefused\nread-only\nno-mount\n");
    Ok(())
}

pub(crate) fn network_none_has_loopback_only(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script = "ls /sys/class/net; ip -o addr show lo | grep -c 127.0.0.1";
    let output = rcd.rc_ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        script,
    ])?;
    assert_eq!(output, "lo\n1");
    assert_eq!(
        rcd.rc_ok(&["run", "--rm", "busybox", "ls", "/sys/class/net"])?,
        "lo"
    );
    Ok(())
}

pub(crate) fn network_host_has_the_hosts(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    let run = [
        "run",
        "--rm",
        "--network",
        "host",
        "busybox",
        "readlink",
        "/proc/self/ns/net",
    ];
    assert_eq!(rcd.rc_ok(&run)?, host.to_string_lossy());
    Ok(())
}

pub(crate) fn setuid_programs_work(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script =
        "cp /bin/busybox /tmp/id && chmod 4755 /tmp/id && su app -c '/tmp/id id -u'; id -u";
    let output = rcd.rc(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert_code(&output, 0);
    assert!(output.stdout.ends_with("0\n"), "{}", output.stdout);
    Ok(())
}
