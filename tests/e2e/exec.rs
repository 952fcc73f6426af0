//! `rc exec`.

use std::io::Read;

use rcd_tests::{Daemon, Environment, Service, Terminal, harness::Verdict};

use crate::support::{assert_code, assert_refused, busybox, finish, spawn};

fn sleeper(environment: &Environment) -> rcd_tests::Result<Service> {
    let rcd = busybox(environment)?;
    let run = [
        "run", "-d", "--name", "main", "-e", "A=1", "-w", "/var", "busybox", "sleep", "1000",
    ];
    rcd.rc_ok(&run)?;
    Ok(rcd)
}

pub(crate) fn runs_in_the_container(environment: &Environment) -> Verdict {
    let rcd = sleeper(environment)?;
    let script = "echo $A; pwd; echo x >/made";
    assert_eq!(rcd.rc_ok(&["exec", "main", "sh", "-c", script])?, "1\n/var");
    let exec = [
        "exec",
        "-e",
        "A=2",
        "-w",
        "/tmp",
        "-u",
        "app",
        "main",
        "sh",
        "-c",
        "echo $A; pwd; id -u",
    ];
    assert_eq!(rcd.rc_ok(&exec)?, "2\n/tmp\n1000");
    assert_eq!(rcd.rc_ok(&["exec", "main", "cat", "/made"])?, "x");
    Ok(())
}

pub(crate) fn exit_codes_and_errors(environment: &Environment) -> Verdict {
    let rcd = sleeper(environment)?;
    assert_code(&rcd.rc(&["exec", "main", "sh", "-c", "exit 9"]), 9);
    assert_code(&rcd.rc(&["exec", "main", "no-such-program"]), 127);
    assert_code(&rcd.rc(&["exec", "main", "/etc/not-a-program"]), 126);
    assert_refused(
        &rcd.rc(&["exec", "nobody", "true"]),
        125,
        &["no such container", "nobody"],
    );
    rcd.rc_ok(&["kill", "main"])?;
    rcd.rc_ok(&["wait", "main"])?;
    assert_refused(&rcd.rc(&["exec", "main", "true"]), 125, &["not running"]);
    Ok(())
}

pub(crate) fn sees_the_containers_processes(environment: &Environment) -> Verdict {
    let rcd = sleeper(environment)?;
    assert_eq!(
        rcd.rc_ok(&["exec", "main", "cat", "/proc/1/comm"])?,
        "sleep"
    );
    let script = "readlink /proc/1/ns/net; readlink /proc/self/ns/net";
    let namespaces = ["exec", "main", "sh", "-c", script];
    let output = rcd.rc_ok(&namespaces)?;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], lines[1]);
    Ok(())
}

pub(crate) fn takes_stdin(environment: &Environment) -> Verdict {
    let rcd = sleeper(environment)?;
    let output = rcd
        .sandbox()
        .rc_with_input(&["exec", "-i", "main", "cat"], b"through\n");
    assert_code(&output, 0);
    assert_eq!(output.stdout, "through\n");
    Ok(())
}

pub(crate) fn has_a_terminal(environment: &Environment) -> Verdict {
    let rcd = sleeper(environment)?;
    let mut terminal = Terminal::start(&rcd.sandbox().rc_command(&["exec", "-it", "main", "sh"]))?;
    terminal.expect("# ")?;
    terminal.send("tty; stty size\n")?;
    terminal.expect("/dev/pts/")?;
    terminal.expect("24 80")?;
    terminal.send("exit 4\n")?;
    assert_eq!(terminal.wait()?, 4);
    Ok(())
}

pub(crate) fn ends_with_the_container(environment: &Environment) -> Verdict {
    let rcd = sleeper(environment)?;
    let mut client = spawn(
        &rcd,
        &["exec", "main", "sh", "-c", "echo up; sleep 1000; true"],
    )?;
    let mut up = [0; 3];
    client.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    rcd.rc_ok(&["kill", "main"])?;
    let (code, _, stderr) = finish(client)?;
    assert_eq!(code, 137, "{stderr}");
    Ok(())
}
