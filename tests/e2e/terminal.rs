//! `-it`: a shell, its size, detaching.

use rcd_tests::{Daemon, Environment, Service, Terminal, harness::Verdict};

use crate::support::{busybox, status};

/// Between the program's first output and its reading from the terminal.
const KEY_PAUSE: std::time::Duration = std::time::Duration::from_millis(300);

fn shell(rcd: &Service, arguments: &[&str]) -> rcd_tests::Result<Terminal> {
    let arguments = [["run", "-it"].as_slice(), arguments, &["busybox", "sh"]].concat();
    let mut terminal = Terminal::start(&rcd.sandbox().rc_command(&arguments))?;
    terminal.expect("# ")?;
    Ok(terminal)
}

pub(crate) fn a_shell_has_job_control(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let mut terminal = shell(&rcd, &["--rm"])?;
    terminal.send("tty; sleep 1000 &\n")?;
    terminal.expect("/dev/pts/0")?;
    terminal.send("jobs\n")?;
    terminal.expect("sleep 1000")?;
    // Keys that come before the program runs are the shell's.
    terminal.send("echo ru''n; cat\n")?;
    terminal.expect("run\r\n")?;
    std::thread::sleep(KEY_PAUSE);
    terminal.send("\x1a")?;
    terminal.expect("Stopped")?;
    terminal.send("exit 5\n")?;
    terminal.send("exit 5\n")?;
    assert_eq!(terminal.wait()?, 5);
    Ok(())
}

pub(crate) fn size_follows_the_terminal(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let mut terminal = shell(&rcd, &["--rm"])?;
    terminal.send("stty size\n")?;
    terminal.expect("24 80")?;
    let wait = "until [ \"$(stty size)\" = '40 132' ]; do usleep 10000; done; echo resi''zed\n";
    terminal.send(wait)?;
    terminal.resize(40, 132)?;
    terminal.expect("resized")?;
    terminal.send("exit\n")?;
    assert_eq!(terminal.wait()?, 0);
    Ok(())
}

pub(crate) fn detach_keys_leave_it_running(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let mut terminal = shell(&rcd, &["--name", "main"])?;
    terminal.send("\x10\x11")?;
    assert_eq!(terminal.wait()?, 0);
    assert_eq!(status(&rcd, "main")?, "running");
    let mut again = Terminal::start(&rcd.sandbox().rc_command(&["attach", "main"]))?;
    again.send("echo still''here\n")?;
    again.expect("stillhere")?;
    again.send("exit 3\n")?;
    assert_eq!(again.wait()?, 3);
    Ok(())
}

pub(crate) fn other_detach_keys(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let mut terminal = shell(&rcd, &["--name", "main", "--detach-keys", "ctrl-x,q"])?;
    terminal.send("\x18q")?;
    assert_eq!(terminal.wait()?, 0);
    assert_eq!(status(&rcd, "main")?, "running");
    Ok(())
}

pub(crate) fn interrupt_goes_to_the_foreground(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let mut terminal = shell(&rcd, &["--rm"])?;
    terminal.send("echo ru''n; sleep 1000\n")?;
    terminal.expect("run\r\n")?;
    std::thread::sleep(KEY_PAUSE);
    terminal.send("\x03")?;
    terminal.expect("# ")?;
    terminal.send("echo al''ive\n")?;
    terminal.expect("alive")?;
    terminal.send("exit\n")?;
    assert_eq!(terminal.wait()?, 0);
    Ok(())
}
