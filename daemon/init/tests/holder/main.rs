//! A real holder, driven through its socket by a client that plays the daemon, well or badly.
//!
//! The holder refuses to be root, so as root these tests are skipped; each prints so.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic, and prints why it skips"
)]

mod client;

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;

use client::{Client, Holder, container, exec, exec_plan, init, process, with_devpts};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::signal::Signal;
use rcd_init::plan::TerminalSize;
use rcd_init::protocol::{Failure, FdRole, Reply, Request, Slot, Step, encode};
use rcd_sys::scm;

/// The next reply, which must be a failed start.
fn failure(client: &Client) -> Failure {
    match client.receive().0 {
        Reply::SpawnFailed { seq, failure } if seq == client.seq => failure,
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn an_exit_code_is_told_once_the_process_ends() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let mut daemon = holder.daemon();
    let fds = daemon.run(&init("a"), &container(process("exit 7")), &[]);
    assert!(matches!(fds[..], [(FdRole::Pidfd, _)]));
    assert_eq!(daemon.exited(&init("a")), 7);
    daemon.acknowledge(&init("a"));
    assert_eq!(daemon.list(), []);
}

#[test]
fn an_exit_code_is_told_to_each_daemon_until_it_is_acknowledged() {
    let Some(holder) = Holder::start() else {
        return;
    };
    holder
        .daemon()
        .run(&init("a"), &container(process("sleep 0.1; exit 9")), &[]);
    let second = holder.daemon();
    assert_eq!(second.exited(&init("a")), 9);
    drop(second);
    let mut third = holder.daemon();
    assert_eq!(third.exited(&init("a")), 9);
    assert_eq!(third.list(), [(init("a"), Some(9), vec![])]);
    third.acknowledge(&init("a"));
    assert_eq!(holder.daemon().list(), []);
}

#[test]
fn kept_descriptors_outlive_the_daemon_until_they_are_dropped() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let (stdin, ours) = std::io::pipe().unwrap();
    let (mut output, stdout) = std::io::pipe().unwrap();
    let fds = [
        (FdRole::Stdin, stdin.as_fd()),
        (FdRole::Stdout, stdout.as_fd()),
        (FdRole::Keep(Slot::Stdin), ours.as_fd()),
    ];
    let mut first = holder.daemon();
    first.run(&init("a"), &container(process("cat; exit 3")), &fds);
    drop((first, stdin, ours, stdout));
    let mut second = holder.daemon();
    let listed = vec![FdRole::Pidfd, FdRole::Keep(Slot::Stdin)];
    assert_eq!(second.list(), [(init("a"), None, listed)]);
    second.seq += 1;
    second.send(&Request::List { seq: second.seq }, &[]);
    let (_, mut fds) = second.receive();
    std::fs::File::from(fds.remove(1).1)
        .write_all(b"still here")
        .unwrap();
    assert!(matches!(second.receive().0, Reply::ListEnd { .. }));
    second.send(
        &Request::Drop {
            key: init("a"),
            slot: Slot::Stdin,
        },
        &[],
    );
    assert_eq!(second.exited(&init("a")), 3);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
}

#[test]
fn a_terminal_is_handed_over_and_kept() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let mut plan = process("stty size; read line; exit 6");
    plan.terminal = Some(TerminalSize {
        rows: 33,
        columns: 99,
    });
    let mut first = holder.daemon();
    let fds = first.run(&init("a"), &with_devpts(plan), &[]);
    let roles: Vec<FdRole> = fds.iter().map(|(role, _)| *role).collect();
    assert_eq!(roles, [FdRole::Pidfd, FdRole::Keep(Slot::Pty)]);
    drop((first, fds));
    let mut second = holder.daemon();
    second.seq += 1;
    second.send(&Request::List { seq: second.seq }, &[]);
    let mut master = std::fs::File::from(second.receive().1.remove(1).1);
    assert!(matches!(second.receive().0, Reply::ListEnd { .. }));
    // The child's terminal is non-blocking, as the daemon wants it.
    fcntl(&master, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let mut text = [0; 7];
    master.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"33 99\r\n");
    master.write_all(b"\n").unwrap();
    assert_eq!(second.exited(&init("a")), 6);
}

#[test]
fn a_program_that_is_not_there_leaves_nothing() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let mut daemon = holder.daemon();
    let mut plan = process("");
    plan.argv = vec!["/no/such/program".into()];
    daemon.spawn(&init("a"), &container(plan), &[]);
    let failure = failure(&daemon);
    assert_eq!((failure.step, failure.errno), (Step::Exec, libc::ENOENT));
    assert_eq!(daemon.list(), []);
}

#[test]
fn a_plan_that_is_no_plan_leaves_nothing() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let mut daemon = holder.daemon();
    daemon.spawn(&init("a"), &[0xff; 100], &[]);
    assert_eq!(failure(&daemon).step, Step::Plan);
    assert_eq!(daemon.list(), []);
}

#[test]
fn a_child_killed_on_its_way_is_a_failed_start() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let mut daemon = holder.daemon();
    let mut plan = process("exit 0");
    // One instruction, BPF_RET | BPF_K with SECCOMP_RET_KILL_PROCESS: the next call is the last.
    let instruction = [0x06_u64.to_ne_bytes(), 0_u64.to_ne_bytes()];
    plan.seccomp = [
        &instruction[0][..2],
        &[0, 0],
        &0x8000_0000_u32.to_ne_bytes(),
    ]
    .concat();
    daemon.spawn(&init("a"), &container(plan), &[]);
    let failure = failure(&daemon);
    assert!(failure.detail.contains("signal 31"), "{failure:?}");
    assert_eq!(daemon.list(), []);
}

#[test]
fn an_exec_joins_its_container_and_ends_with_it() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let mut daemon = holder.daemon();
    daemon.run(&init("a"), &container(process("sleep 0.2; exit 4")), &[]);
    daemon.run(&exec("a", "e1"), &exec_plan(process("exit 5")), &[]);
    assert_eq!(daemon.exited(&exec("a", "e1")), 5);
    daemon.run(
        &exec("a", "e2"),
        &exec_plan(process("exec sleep 1000")),
        &[],
    );
    let mut ends = [daemon.receive().0, daemon.receive().0].map(|reply| match reply {
        Reply::Exited { key, exit } => (key, exit.code),
        reply => panic!("{reply:?}"),
    });
    ends.sort();
    assert_eq!(
        ends,
        [(init("a"), 4), (exec("a", "e2"), 128 + libc::SIGKILL)]
    );
}

#[test]
fn impossible_requests_are_refused_and_cost_nothing() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let mut daemon = holder.daemon();
    daemon.run(&init("a"), &container(process("exec sleep 1000")), &[]);
    let mut refused = |key, more: &[_]| {
        daemon.spawn(&key, b"", more);
        let failure = failure(&daemon);
        assert_eq!(failure.step, Step::Admit, "{failure:?}");
    };
    refused(init("a"), &[]);
    refused(init("../a"), &[]);
    refused(exec("nowhere", "e"), &[]);
    let null = std::fs::File::open("/dev/null").unwrap();
    refused(init("b"), &[(FdRole::Pidfd, null.as_fd())]);
    refused(init("b"), &[(FdRole::Keep(Slot::Pty), null.as_fd())]);
    assert_eq!(daemon.list().len(), 1);
}

#[test]
fn a_container_starts_in_the_cgroup_it_is_given() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let mut daemon = holder.connect();
    daemon.send(&Request::Hello { version: 1 }, &[]);
    let Reply::Welcome {
        cgroup: Some(base), ..
    } = daemon.receive().0
    else {
        println!("skipped: no cgroup is delegated to this test");
        return;
    };
    let path = Path::new(&base).join("a");
    std::fs::create_dir(&path).unwrap();
    let directory = std::fs::File::open(&path).unwrap();
    let (stdin, ours) = std::io::pipe().unwrap();
    let fds = [
        (FdRole::Cgroup, directory.as_fd()),
        (FdRole::Stdin, stdin.as_fd()),
    ];
    daemon.run(&init("a"), &container(process("cat")), &fds);
    let inside = std::fs::read_to_string(path.join("cgroup.procs")).unwrap();
    assert!(inside.lines().count() > 0);
    daemon.run(&exec("a", "e"), &exec_plan(process("cat")), &fds);
    let both = std::fs::read_to_string(path.join("cgroup.procs")).unwrap();
    assert!(both.lines().count() > inside.lines().count());
    drop(ours);
    let _ = (daemon.receive(), daemon.receive());
    std::fs::remove_dir(&path).unwrap();
}

#[test]
fn nothing_is_left_of_processes_that_were_acknowledged() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let mut daemon = holder.daemon();
    let descriptors = format!("/proc/{}/fd", holder.child.id());
    let count = || std::fs::read_dir(&descriptors).map(Iterator::count).ok();
    let before = count();
    for _ in 0..20 {
        daemon.run(&init("a"), &container(process("sleep 0.05")), &[]);
        daemon.run(&exec("a", "e"), &exec_plan(process("exit 0")), &[]);
        for _ in 0..2 {
            match daemon.receive().0 {
                Reply::Exited { key, .. } => daemon.acknowledge(&key),
                reply => panic!("{reply:?}"),
            }
        }
    }
    assert_eq!(daemon.list(), []);
    assert_eq!(count(), before);
}

#[test]
fn many_at_once_all_succeed() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let mut daemon = holder.daemon();
    let plan = container(process("exit 1"));
    for number in 0..64 {
        daemon.spawn(&init(&format!("c{number}")), &plan, &[]);
    }
    let (mut spawned, mut exited) = (0, 0);
    while spawned + exited < 128 {
        match daemon.receive().0 {
            Reply::Spawned { .. } => spawned += 1,
            Reply::Exited { key, exit } => {
                assert_eq!(exit.code, 1);
                daemon.acknowledge(&key);
                exited += 1;
            }
            reply => panic!("{reply:?}"),
        }
    }
    assert_eq!(daemon.list(), []);
}

#[test]
fn a_daemon_that_dies_in_a_start_leaves_a_process_known_or_none() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let plan = container(process("exec sleep 1000"));
    for round in 0..30 {
        let mut daemon = holder.daemon();
        daemon.spawn(&init(&format!("c{round}")), &plan, &[]);
        // Some die at once, some while the child is on its way.
        std::thread::sleep(std::time::Duration::from_micros(round * 300));
    }
    let mut last = holder.daemon();
    let known = last.list();
    assert!(
        known
            .iter()
            .all(|(_, exit, roles)| exit.is_none() && *roles == [FdRole::Pidfd])
    );
    assert_eq!(last.list(), known);
}

#[test]
fn sigterm_stops_the_containers_and_ends_the_holder() {
    let Some(mut holder) = Holder::start() else {
        return;
    };
    let mut daemon = holder.daemon();
    let polite = process("trap 'exit 42' TERM; while :; do sleep 0.01; done");
    daemon.run(&init("a"), &container(polite), &[]);
    // The shell needs a moment to set its trap; without it the signal is lost on an init.
    std::thread::sleep(std::time::Duration::from_millis(200));
    holder.signal(Signal::SIGTERM);
    assert_eq!(daemon.receive().0, Reply::Stopping);
    assert_eq!(daemon.exited(&init("a")), 42);
    assert!(holder.child.wait().unwrap().success());
    assert!(!holder.socket().exists());
}

#[test]
fn a_second_sigterm_kills_at_once() {
    let Some(mut holder) = Holder::start() else {
        return;
    };
    let mut daemon = holder.daemon();
    daemon.run(
        &init("a"),
        &container(process("trap '' TERM; sleep 1000")),
        &[],
    );
    holder.signal(Signal::SIGTERM);
    assert_eq!(daemon.receive().0, Reply::Stopping);
    daemon.spawn(&init("b"), b"", &[]);
    assert_eq!(failure(&daemon).detail, "the holder is stopping");
    holder.signal(Signal::SIGTERM);
    assert_eq!(daemon.exited(&init("a")), 128 + libc::SIGKILL);
    assert!(holder.child.wait().unwrap().success());
}

#[test]
fn containers_end_with_a_holder_that_is_killed() {
    let Some(mut holder) = Holder::start() else {
        return;
    };
    let fds = holder
        .daemon()
        .run(&init("a"), &container(process("exec sleep 1000")), &[]);
    holder.child.kill().unwrap();
    let mut poll = [nix::poll::PollFd::new(
        fds[0].1.as_fd(),
        nix::poll::PollFlags::POLLIN,
    )];
    assert_eq!(nix::poll::poll(&mut poll, 30_000_u16), Ok(1));
}

#[test]
fn a_second_holder_is_told_of_the_first() {
    let Some(holder) = Holder::start() else {
        return;
    };
    holder.daemon();
    let second = Command::new(env!("CARGO_BIN_EXE_rcd-init"))
        .args(["hold", "--socket"])
        .arg(holder.socket())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another holder answers"), "{said}");
}

#[test]
fn the_service_manager_hears_and_nobody_waits_for_the_holders_output() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let directory = holder.socket().with_file_name("other");
    let notify = holder.socket().with_file_name("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&notify).unwrap();
    manager
        .set_read_timeout(Some(std::time::Duration::from_secs(30)))
        .unwrap();
    let mut other = Command::new(env!("CARGO_BIN_EXE_rcd-init"))
        .args(["hold", "--socket"])
        .arg(directory.join("holder.sock"))
        .env("NOTIFY_SOCKET", &notify)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut state = [0; 64];
    let len = manager.recv(&mut state).unwrap();
    assert_eq!(&state[..len], b"READY=1");
    let mut output = Vec::new();
    other
        .stderr
        .take()
        .unwrap()
        .read_to_end(&mut output)
        .unwrap();
    assert_eq!(output, b"");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(other.id() as i32),
        Signal::SIGTERM,
    )
    .unwrap();
    let len = manager.recv(&mut state).unwrap();
    assert_eq!(&state[..len], b"STOPPING=1");
    assert!(other.wait().unwrap().success());
}

#[test]
fn a_directory_that_is_open_to_others_is_refused() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let open = holder.socket().parent().unwrap().join("open");
    std::fs::create_dir(&open).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&open, mode).unwrap();
    let second = Command::new(env!("CARGO_BIN_EXE_rcd-init"))
        .args(["hold", "--socket"])
        .arg(open.join("holder.sock"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("is open to other users"), "{said}");
}

#[test]
fn bad_packets_cost_the_connection_and_nothing_else() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let mut first = holder.daemon();
    first.run(&init("a"), &container(process("exec sleep 1000")), &[]);
    let null = std::fs::File::open("/dev/null").unwrap();
    let hello = encode(&Request::Hello { version: 1 }).unwrap();
    let list = encode(&Request::List { seq: 1 }).unwrap();
    let mut state = 0x1234_5678_u32;
    for round in 0..300_usize {
        let client = holder.connect();
        let mut bytes = if round % 3 == 0 {
            hello.clone()
        } else {
            vec![0; round % 40 + 1]
        };
        for byte in &mut bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state.is_multiple_of(3) {
                *byte = (state >> 16) as u8;
            }
        }
        let fds = vec![null.as_fd(); round % 5];
        scm::send(client.socket.as_fd(), &bytes, &fds).unwrap();
        let _ = scm::send(client.socket.as_fd(), &list, &fds);
        let _ = scm::send(client.socket.as_fd(), &[7; 40_000], &[]);
    }
    assert_eq!(holder.daemon().list().len(), 1);
}

#[test]
fn a_daemon_that_reads_nothing_loses_its_connection_only() {
    let Some(holder) = Holder::start() else {
        return;
    };
    let mut deaf = holder.daemon();
    deaf.run(&init("a"), &container(process("exec sleep 1000")), &[]);
    let list = encode(&Request::List { seq: 1 }).unwrap();
    loop {
        match scm::send(deaf.socket.as_fd(), &list, &[]) {
            Ok(()) => {}
            Err(rcd_sys::Errno::EAGAIN) => std::thread::yield_now(),
            Err(_) => break,
        }
    }
    assert_eq!(holder.daemon().list().len(), 1);
}

#[test]
fn descriptors_that_fill_the_users_sockets_delay_an_answer_and_cost_nothing() {
    const DESCRIPTORS_MAX: u32 = 300;
    let Some(holder) = Holder::start_with(DESCRIPTORS_MAX) else {
        return;
    };
    let mut daemon = holder.daemon();
    // As a container could, which is the same user's: more than the holder's limit in transit.
    let null = std::fs::File::open("/dev/null").unwrap();
    let packet = [null.as_fd(); scm::FDS_MAX];
    let full: Vec<_> = (0..4).map(|_| scm::pair().unwrap()).collect();
    for (socket, _) in full.iter().cycle().take(32) {
        scm::send(socket.as_fd(), b"x", &packet).unwrap();
    }
    daemon.spawn(&init("a"), &container(process("exit 3")), &[]);
    // Time for the holder to try and be refused; a slower one only makes the test weaker.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let early = scm::receive(daemon.socket.as_fd(), &mut [0; 1], false);
    assert_eq!(early.map(|packet| packet.len), Err(rcd_sys::Errno::EAGAIN));
    drop(full);
    let (reply, fds) = daemon.receive();
    assert!(matches!(reply, Reply::Spawned { .. }), "{reply:?}");
    assert_eq!(fds.len(), 1);
    assert_eq!(daemon.exited(&init("a")), 3);
}
