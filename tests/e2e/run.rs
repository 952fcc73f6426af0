//! `rc run`: output, exit codes, what the program finds.

use rcd_tests::{Daemon, Environment, harness::Verdict};

use crate::support::{assert_code, busybox, finish, spawn};

pub(crate) fn passes_output_and_exit_code(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let output = rcd.rc(&["run", "--rm", "busybox", "echo", "hello"]);
    assert_code(&output, 0);
    assert_eq!(output.stdout, "hello\n");
    assert_eq!(output.stderr, "");
    Ok(())
}

pub(crate) fn exit_codes_are_dockers(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    for (code, command) in [
        (0, ["true"].as_slice()),
        (7, ["sh", "-c", "exit 7"].as_slice()),
        (255, ["sh", "-c", "exit 255"].as_slice()),
        (127, ["no-such-program"].as_slice()),
        (127, ["/no/such/program"].as_slice()),
        (126, ["/etc/not-a-program"].as_slice()),
        (126, ["/etc"].as_slice()),
    ] {
        let arguments = [["run", "--rm", "busybox"].as_slice(), command].concat();
        assert_code(&rcd.rc(&arguments), code);
    }
    assert_code(&rcd.rc(&["run", "--no-such-flag", "busybox"]), 125);
    assert_eq!(
        rcd.rc_ok(&["ps", "-aq"])?,
        "",
        "failed starts left containers behind"
    );
    Ok(())
}

pub(crate) fn a_signal_is_128_and_its_number(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    rcd.rc_ok(&["run", "-d", "--name", "main", "busybox", "sleep", "1000"])?;
    rcd.rc_ok(&["kill", "main"])?;
    assert_eq!(rcd.rc_ok(&["wait", "main"])?, "137");
    let segfault = rcd.rc(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "sh -c 'kill -SEGV $$'; exit $?",
    ]);
    assert_code(&segfault, 139);
    Ok(())
}

pub(crate) fn stdin_reaches_the_program(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let input: String = (0..20_000)
        .map(|number| format!("line {number}\n"))
        .collect();
    let run = ["run", "--rm", "-i", "busybox", "md5sum"];
    let inside = rcd.sandbox().rc_with_input(&run, input.as_bytes());
    assert_code(&inside, 0);
    let run = ["run", "--rm", "-i", "busybox", "wc", "-c"];
    let count = rcd.sandbox().rc_with_input(&run, input.as_bytes());
    assert_eq!(count.stdout.trim(), input.len().to_string());
    let without = rcd
        .sandbox()
        .rc_with_input(&["run", "--rm", "busybox", "cat"], b"lost");
    assert_eq!(without.stdout, "", "without -i there is no input");
    Ok(())
}

pub(crate) fn environment_workdir_and_hostname(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let mut arguments = vec![
        "run",
        "--rm",
        "-e",
        "A=1",
        "-e",
        "B=two words",
        "-w",
        "/var",
    ];
    arguments.extend([
        "-h",
        "box",
        "busybox",
        "sh",
        "-c",
        "echo $A; echo $B; pwd; hostname",
    ]);
    assert_eq!(rcd.rc_ok(&arguments)?, "1\ntwo words\n/var\nbox");
    let id = rcd.rc_ok(&["run", "-d", "busybox", "hostname"])?;
    rcd.rc_ok(&["wait", &id])?;
    let logs = rcd.rc_ok(&["logs", &id])?;
    assert!(
        !logs.is_empty() && id.starts_with(&logs),
        "the host name is the short id: {logs}"
    );
    Ok(())
}

pub(crate) fn users_by_name_and_number(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script = "id -u; id -g; echo $HOME";
    for (user, expected) in [
        ("app", "1000\n1001\n/home/app"),
        ("1000", "1000\n1001\n/home/app"),
        ("app:root", "1000\n0\n/home/app"),
        ("4242:4343", "4242\n4343\n/"),
        ("0", "0\n0\n/root"),
    ] {
        let output = rcd.rc_ok(&["run", "--rm", "-u", user, "busybox", "sh", "-c", script])?;
        assert_eq!(output, expected, "-u {user}");
    }
    Ok(())
}

pub(crate) fn groups_of_the_image_apply(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let groups = rcd.rc_ok(&["run", "--rm", "-u", "app", "busybox", "id", "-G"])?;
    assert_eq!(groups, "1001 1002");
    Ok(())
}

pub(crate) fn entrypoint_and_command(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let run = [
        "run",
        "--rm",
        "--entrypoint",
        "echo",
        "busybox",
        "one",
        "two words",
    ];
    assert_eq!(rcd.rc_ok(&run)?, "one two words");
    Ok(())
}

pub(crate) fn removed_containers_leave_nothing(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    for _ in 0..5 {
        rcd.rc_ok(&["run", "--rm", "busybox", "touch", "/file"])?;
    }
    assert_eq!(rcd.rc_ok(&["ps", "-aq"])?, "");
    let containers = rcd.sandbox().data().join("containers");
    rcd_tests::command::until(20, "an empty containers folder", || {
        let mut entries = std::fs::read_dir(&containers).ok()?;
        entries.next().is_none().then_some(())
    })
}

pub(crate) fn streams_stay_apart(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script = "echo out; echo err >&2; echo out2; echo err2 >&2";
    let output = rcd.rc(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\nout2\n", "err\nerr2\n")
    );
    Ok(())
}

pub(crate) fn much_output_arrives_whole(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script = "seq 1 300000";
    let output = rcd.rc(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert_code(&output, 0);
    assert_eq!(output.stdout.lines().count(), 300_000);
    assert_eq!(output.stdout.lines().last(), Some("300000"));
    Ok(())
}

pub(crate) fn sixteen_at_once(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let clients: Vec<_> = (0..16)
        .map(|number| {
            spawn(
                &rcd,
                &["run", "--rm", "busybox", "echo", &number.to_string()],
            )
        })
        .collect::<Result<_, _>>()?;
    for (number, client) in clients.into_iter().enumerate() {
        let (code, stdout, stderr) = finish(client)?;
        assert_eq!(
            (code, stdout.trim()),
            (0, number.to_string().as_str()),
            "{stderr}"
        );
    }
    assert_eq!(rcd.rc_ok(&["ps", "-aq"])?, "");
    Ok(())
}

pub(crate) fn fifty_run_side_by_side(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let clients: Vec<_> = (0..50)
        .map(|number| {
            let name = format!("c{number}");
            spawn(
                &rcd,
                &["run", "-d", "--name", &name, "busybox", "sleep", "1000"],
            )
        })
        .collect::<Result<_, _>>()?;
    for client in clients {
        let (code, _, stderr) = finish(client)?;
        assert_eq!(code, 0, "{stderr}");
    }
    assert_eq!(rcd.rc_ok(&["ps", "-q"])?.lines().count(), 50);
    let names: Vec<String> = (0..50).map(|number| format!("c{number}")).collect();
    let remove: Vec<&str> = ["rm", "-f"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    rcd.rc_ok(&remove)?;
    assert_eq!(rcd.rc_ok(&["ps", "-aq"])?, "");
    Ok(())
}
