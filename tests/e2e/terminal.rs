//! `-it`: a shell, its size, detaching.

use rcd_tests::{Daemon, Environment, Service, Terminal, harness::Verdict};

use crate::support::{busybox, status};

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
    terminal.send("cat\n")?;
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
    terminal.send("trap 'stty size; echo resized' WINCH; sleep 0.1; echo rea''dy\n")?;
    terminal.expect("ready")?;
    terminal.resize(40, 132)?;
    terminal.send("\n")?;
    terminal.expect("40 132")?;
    terminal.send("exit\n")?;
    assert_eq!(terminal.wait()?, 0);
    Ok(())
}

pub(crate) fn detach_keys_leave_it_running(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let mut terminal = shell(&rcd, &["--name", "a"])?;
    terminal.send("\x10\x11")?;
    assert_eq!(terminal.wait()?, 0);
    assert_eq!(status(&rcd, "a")?, "running");
    let mut again = Terminal::start(&rcd.sandbox().rc_command(&["attach", "a"]))?;
    again.send("echo still''here\n")?;
    again.expect("stillhere")?;
    again.send("exit 3\n")?;
    assert_eq!(again.wait()?, 3);
    Ok(())
}

pub(crate) fn other_detach_keys(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let mut terminal = shell(&rcd, &["--name", "a", "--detach-keys", "ctrl-x,q"])?;
    terminal.send("\x18q")?;
    assert_eq!(terminal.wait()?, 0);
    assert_eq!(status(&rcd, "a")?, "running");
    Ok(())
}

pub(crate) fn interrupt_goes_to_the_foreground(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let mut terminal = shell(&rcd, &["--rm"])?;
    terminal.send("sleep 1000\n")?;
    terminal.expect("sleep 1000")?;
    terminal.send("\x03")?;
    terminal.expect("# ")?;
    terminal.send("echo al''ive\n")?;
    terminal.expect("alive")?;
    terminal.send("exit\n")?;
    assert_eq!(terminal.wait()?, 0);
    Ok(())
}
