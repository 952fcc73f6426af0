//! The task against a holder that the test plays over a socket pair.

use std::io::Write;
use std::os::fd::BorrowedFd;

use rcd_init::protocol::{Exit, Failure, PROTOCOL_VERSION, Step};
use rcd_sys::scm;

use super::*;
use crate::options::Network;
use crate::{Joined, Runtime, Settings, testing};

/// The other end of the socket.
struct FakeHolder {
    socket: OwnedFd,
}

impl FakeHolder {
    fn send(&self, reply: &Reply, fds: &[BorrowedFd<'_>]) {
        scm::send(
            self.socket.as_fd(),
            &postcard::to_stdvec(reply).unwrap(),
            fds,
        )
        .unwrap();
    }

    fn receive(&self) -> Option<(Request, Vec<OwnedFd>)> {
        let mut buffer = [0; 16 << 10];
        let received = scm::receive(self.socket.as_fd(), &mut buffer, true).ok()?;
        let bytes = buffer.get(..received.len).filter(|b| !b.is_empty())?;
        Some((postcard::from_bytes(bytes).unwrap(), received.fds))
    }

    fn receive_spawn(&self) -> Spawn {
        let (request, fds) = self.receive().unwrap();
        let Request::Spawn(spawn) = request else {
            panic!("{request:?}")
        };
        assert_eq!(spawn.fds.len(), fds.len());
        spawn
    }

    fn spawned(&self, seq: u64, pid: i32) {
        let pidfd = std::fs::File::open("/dev/null").unwrap();
        let reply = Reply::Spawned {
            seq,
            pid,
            started_at_ns: 9,
            fds: vec![FdRole::Pidfd],
        };
        self.send(&reply, &[pidfd.as_fd()]);
    }
}

fn connect_as(version: u32) -> (Result<Joined, Error>, FakeHolder) {
    let (ours, theirs) = scm::pair().unwrap();
    let holder = FakeHolder { socket: theirs };
    holder.send(
        &Reply::Welcome {
            version,
            pid: std::process::id() as i32,
            cgroup: None,
        },
        &[],
    );
    let joined = Joined::handshake(ours, std::path::Path::new("/test"));
    let (hello, _) = holder.receive().unwrap();
    assert_eq!(
        hello,
        Request::Hello {
            version: PROTOCOL_VERSION
        }
    );
    (joined, holder)
}

fn start() -> (Runtime, mpsc::Receiver<Event>, FakeHolder) {
    let (joined, holder) = connect_as(PROTOCOL_VERSION);
    let (runtime, events) = Runtime::start(joined.unwrap(), Settings::default()).unwrap();
    (runtime, events, holder)
}

fn options(id: &str) -> crate::ContainerOptions {
    // The host's network, so that tests need no right to make namespaces.
    crate::ContainerOptions {
        id: id.into(),
        network: Network::Host,
        ..testing::container()
    }
}

fn key(container: &str) -> ProcessKey {
    ProcessKey {
        container: container.into(),
        exec: None,
    }
}

fn exit(code: i32) -> Exit {
    Exit {
        code,
        signal: 0,
        at_ns: 1,
    }
}

/// Runs a holder's blocking side beside the test.
async fn play<T: Send + 'static>(
    holder: FakeHolder,
    part: impl FnOnce(&FakeHolder) -> T + Send + 'static,
) -> (FakeHolder, T) {
    tokio::task::spawn_blocking(move || {
        let result = part(&holder);
        (holder, result)
    })
    .await
    .unwrap()
}

#[test]
fn versions_that_nobody_speaks_are_refused() {
    let (joined, _holder) = connect_as(PROTOCOL_VERSION + 1);
    let text = joined.unwrap_err().to_string();
    assert_eq!(text, "the holder speaks protocol 2, this daemon 1 to 1");
}

#[test]
fn a_refusal_and_a_closed_socket_are_told_apart() {
    let (ours, theirs) = scm::pair().unwrap();
    let holder = FakeHolder { socket: theirs };
    holder.send(
        &Reply::Refused {
            reason: "no".into(),
        },
        &[],
    );
    let error = Joined::handshake(ours, std::path::Path::new("/test")).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }));

    let error = crate::join(std::path::Path::new("/nonexistent/holder.sock")).unwrap_err();
    assert!(matches!(error, Error::NoHolder { .. }), "{error}");
}

#[tokio::test]
async fn replies_find_their_requests_in_any_order() {
    let (runtime, _events, holder) = start();
    let play = play(holder, |holder| {
        let (a, b) = (holder.receive_spawn(), holder.receive_spawn());
        for spawn in [b, a] {
            let pid = if spawn.key.container == "a" { 1 } else { 2 };
            holder.spawned(spawn.seq, pid);
        }
    });
    let (a, b, (_holder, ())) = tokio::join!(
        runtime.spawn(options("a")),
        runtime.spawn(options("b")),
        play
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((a.pid, b.pid), (1, 2));
    assert_eq!(a.key, key("a"));
    assert!(a.pidfd.is_some() && a.stdio.stdout.is_some() && a.stdio.stderr.is_some());
}

#[tokio::test]
async fn an_exit_may_come_before_its_start_was_seen() {
    let (runtime, mut events, holder) = start();
    let play = play(holder, |holder| {
        let spawn = holder.receive_spawn();
        holder.spawned(spawn.seq, 1);
        holder.send(
            &Reply::Exited {
                key: spawn.key,
                exit: exit(3),
            },
            &[],
        );
    });
    let (process, _) = tokio::join!(runtime.spawn(options("a")), play);
    assert_eq!(
        events.recv().await,
        Some(Event::Exited {
            key: key("a"),
            exit: exit(3)
        })
    );
    assert_eq!(process.unwrap().pid, 1);
}

#[tokio::test]
async fn a_failed_start_carries_step_and_exit_code() {
    let (runtime, _events, holder) = start();
    let play = play(holder, |holder| {
        let failure = Failure {
            step: Step::Exec,
            object: "sh".into(),
            errno: 2,
            detail: String::new(),
        };
        holder.send(
            &Reply::SpawnFailed {
                seq: holder.receive_spawn().seq,
                failure,
            },
            &[],
        );
    });
    let (process, _) = tokio::join!(runtime.spawn(options("a")), play);
    assert!(matches!(process, Err(Error::Start { exit_code: 127, .. })));
}

#[tokio::test]
async fn a_list_has_descriptors_in_their_places() {
    let (runtime, _events, holder) = start();
    let play = play(holder, |holder| {
        let Some((Request::List { seq }, _)) = holder.receive() else {
            panic!("no list")
        };
        let null = std::fs::File::open("/dev/null").unwrap();
        let process = |exit, fds| Reply::Process {
            seq,
            key: key("a"),
            pid: 7,
            started_at_ns: 9,
            exit,
            fds,
        };
        let slots = [Slot::Stdout, Slot::Pty, Slot::RelayWrite, Slot::RelayRead];
        let roles: Vec<_> = [FdRole::Pidfd]
            .into_iter()
            .chain(slots.map(FdRole::Keep))
            .collect();
        holder.send(&process(None, roles), &[null.as_fd(); 5]);
        holder.send(
            &Reply::Exited {
                key: key("b"),
                exit: exit(0),
            },
            &[],
        );
        holder.send(&process(Some(exit(1)), Vec::new()), &[]);
        holder.send(&Reply::ListEnd { seq }, &[]);
    });
    let (list, _) = tokio::join!(runtime.list(), play);
    let list = list.unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!((list[0].pid, list[0].started_at_ns), (7, 9));
    let stdio = &list[0].stdio;
    assert!(stdio.stdin.is_none() && stdio.stdout.is_some() && stdio.pty.is_some());
    assert!(stdio.relay.is_some() && list[0].pidfd.is_some());
    assert_eq!(list[1].exit, Some(exit(1)));
}

#[tokio::test]
async fn a_holders_death_reaches_every_waiter() {
    let (runtime, mut events, holder) = start();
    let play = play(holder, |holder| {
        holder.receive_spawn();
        holder.receive_spawn();
    });
    let dying = async { drop(play.await) };
    let (a, b, ()) = tokio::join!(
        runtime.spawn(options("a")),
        runtime.spawn(options("b")),
        dying
    );
    assert!(matches!(a, Err(Error::HolderGone)));
    assert!(matches!(b, Err(Error::HolderGone)));
    assert_eq!(events.recv().await, Some(Event::HolderGone));
    assert_eq!(events.recv().await, None);
    assert!(matches!(
        runtime.spawn(options("c")).await,
        Err(Error::HolderGone)
    ));
    assert!(matches!(runtime.list().await, Err(Error::HolderGone)));
    runtime.acknowledge(key("a")).await;
}

#[tokio::test]
async fn a_packet_that_breaks_the_protocol_costs_the_connection() {
    let spawned = Reply::Spawned {
        seq: 1,
        pid: 1,
        started_at_ns: 9,
        fds: vec![FdRole::Pidfd],
    };
    let unknown = Reply::ListEnd { seq: 99 };
    let bad = [vec![0xff; 9], postcard::to_stdvec(&spawned).unwrap()];
    for bytes in bad
        .into_iter()
        .chain([postcard::to_stdvec(&unknown).unwrap()])
    {
        let (runtime, mut events, holder) = start();
        scm::send(holder.socket.as_fd(), &bytes, &[]).unwrap();
        assert_eq!(events.recv().await, Some(Event::HolderGone), "{bytes:?}");
        assert!(matches!(runtime.list().await, Err(Error::HolderGone)));
    }
}

#[tokio::test]
async fn a_start_whose_caller_left_still_happens() {
    let (runtime, mut events, holder) = start();
    let caller = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.spawn(options("a")).await.map(drop) }
    });
    let (holder, spawn) = play(holder, FakeHolder::receive_spawn).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    holder.spawned(spawn.seq, 1);
    holder.send(
        &Reply::Exited {
            key: spawn.key,
            exit: exit(0),
        },
        &[],
    );
    assert_eq!(
        events.recv().await,
        Some(Event::Exited {
            key: key("a"),
            exit: exit(0)
        })
    );
}

#[tokio::test]
async fn events_that_nobody_takes_delay_no_reply_and_none_is_lost() {
    const EXITS: i32 = 1000;
    let (runtime, mut events, holder) = start();
    let play = play(holder, |holder| {
        for code in 0..EXITS {
            let reply = Reply::Exited {
                key: key("a"),
                exit: exit(code),
            };
            let bytes = postcard::to_stdvec(&reply).unwrap();
            while scm::send(holder.socket.as_fd(), &bytes, &[]).is_err() {
                std::thread::yield_now();
            }
        }
        let Some((Request::List { seq }, _)) = holder.receive() else {
            panic!("no list")
        };
        holder.send(&Reply::ListEnd { seq }, &[]);
    });
    let (list, _) = tokio::join!(runtime.list(), play);
    assert!(list.unwrap().is_empty());
    for code in 0..EXITS {
        assert_eq!(
            events.recv().await,
            Some(Event::Exited {
                key: key("a"),
                exit: exit(code)
            })
        );
    }
}

#[tokio::test]
async fn acknowledge_and_drop_reach_the_holder() {
    let (runtime, _events, holder) = start();
    runtime.drop_kept(key("a"), Slot::Stdin).await;
    runtime.acknowledge(key("a")).await;
    let (_, requests) = play(holder, |h| [h.receive().unwrap().0, h.receive().unwrap().0]).await;
    let drop = Request::Drop {
        key: key("a"),
        slot: Slot::Stdin,
    };
    assert_eq!(requests, [drop, Request::Acknowledge { key: key("a") }]);
}

#[tokio::test]
async fn refused_options_never_reach_the_holder() {
    let (runtime, _events, holder) = start();
    let mut bad = options("a");
    bad.process.cwd = "relative".into();
    assert!(matches!(
        runtime.spawn(bad).await,
        Err(Error::Invalid { .. })
    ));
    assert!(matches!(
        runtime.spawn(options("../a")).await,
        Err(Error::Id { .. })
    ));
    drop(runtime);
    let (_, end) = play(holder, |h| h.receive().is_none()).await;
    assert!(
        end,
        "the connection ends with the last handle, and nothing was sent before"
    );
}

/// Descriptors are counted in a process of its own, where no other test opens any.
#[test]
fn no_descriptor_leaks() {
    const CHILD: &str = "RCD_RUNTIME_COUNT_FDS";
    if std::env::var_os(CHILD).is_none() {
        let this = std::env::current_exe().unwrap();
        let test = "client::tests::no_descriptor_leaks";
        let output = std::process::Command::new(this)
            .args([test, "--exact", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        std::io::stderr().write_all(&output.stdout).unwrap();
        assert!(output.status.success());
        return;
    }
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    rt.block_on(async {
        let (joined, mut holder) = connect_as(PROTOCOL_VERSION);
        let (runtime, _events) = Runtime::start(joined.unwrap(), Settings::default()).unwrap();
        let mut before = 0;
        for round in 0..30 {
            let spawn = runtime.spawn(options("a"));
            let play = play(holder, move |holder| {
                let spawn = holder.receive_spawn();
                if round % 2 == 0 {
                    holder.spawned(spawn.seq, 1);
                } else {
                    let failure = Failure {
                        step: Step::Mount,
                        object: String::new(),
                        errno: 1,
                        detail: String::new(),
                    };
                    holder.send(
                        &Reply::SpawnFailed {
                            seq: spawn.seq,
                            failure,
                        },
                        &[],
                    );
                }
            });
            let (process, (back, ())) = tokio::join!(spawn, play);
            assert_eq!(process.is_ok(), round % 2 == 0);
            holder = back;
            // The pool fills its shelf during the first rounds.
            if round == 9 {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                before = count();
            }
        }
        assert_eq!(count(), before);
    });
}
