//! A pool of fresh network namespaces.
//!
//! Making one costs 0.4 to 0.7 ms, much of a container's start, so a thread of its own makes them
//! ahead: `unshare`, `lo` up, two sysctls, a descriptor. Each is given to one container and never
//! comes back: what a container left in one could not be told from nothing.
//!
//! ```text
//!   thread: unshare ─ lo up ─ sysctls ─ open fd ─► [wait for room] ─► shelf ─► take()
//! ```
//!
//! The thread waits *inside* the namespace that it will shelve next, and leaves it as soon as it
//! has done so. An ordinary user's thread cannot go back to the host's namespace; this way the
//! thread at least never keeps a namespace alive that a container uses.
//!
//! `/proc/sys/net` shows the namespace of the *thread* that opens it, and its files may be written
//! by whoever has CAP_NET_ADMIN over that namespace (`net/sysctl_net.c`).

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::Error;

/// How long the thread waits after a failure before it tries again.
const RETRY_AFTER_FAILURE_MS: u64 = 50;

/// How often [`Pool::take`] asks again after a failure: the first one may be an old one.
const TAKE_ATTEMPTS_MAX: u32 = 2;

/// The highest group that older kernels take in `ping_group_range` (`GID_T_MAX`, net/ipv4).
const PING_GID_MAX: u32 = i32::MAX.unsigned_abs();

/// A namespace, or why there is none.
type Made = Result<OwnedFd, Failure>;

/// The step that failed and the kernel's answer.
#[derive(Debug)]
struct Failure {
    step: &'static str,
    source: io::Error,
}

/// Handle to the pool; its thread ends with the last one.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    shelf: Mutex<Shelf>,
    /// Wakes the thread: there is room, or the pool is closed.
    changed: Condvar,
    /// One permit for each entry on the shelf.
    ready: Semaphore,
}

#[derive(Debug)]
struct Shelf {
    made: VecDeque<Made>,
    len_max: usize,
    closed: bool,
}

impl Pool {
    /// Starts the thread. `gid_max` is the highest group id of this user namespace, up to which
    /// unprivileged `ping` is allowed.
    pub(crate) fn start(len_max: usize, gid_max: u32) -> Result<Self, Error> {
        Self::with_maker(len_max, move || make(gid_max))
    }

    fn with_maker(len_max: usize, make: impl Fn() -> Made + Send + 'static) -> Result<Self, Error> {
        let shelf = Shelf {
            made: VecDeque::new(),
            len_max: len_max.max(1),
            closed: false,
        };
        let shared = Arc::new(Shared {
            shelf: Mutex::new(shelf),
            changed: Condvar::new(),
            ready: Semaphore::new(0),
        });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("netns-pool".to_owned())
            .spawn(move || theirs.fill(make))
            .map_err(|source| Error::Setup {
                what: "start the netns pool",
                source,
            })?;
        Ok(Self { shared })
    }

    /// A namespace that nobody else has. Waits for the thread where none is ready, 0.5 ms each.
    /// Cancellation loses nothing.
    pub(crate) async fn take(&self) -> Result<OwnedFd, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let permit = self
                .shared
                .ready
                .acquire()
                .await
                .map_err(|_| Error::ShuttingDown)?;
            permit.forget();
            match self.shared.pop() {
                Some(Ok(fd)) => return Ok(fd),
                Some(Err(_)) if attempt < TAKE_ATTEMPTS_MAX => {}
                Some(Err(Failure { step, source })) => {
                    return Err(Error::NetNs {
                        what: step.to_owned(),
                        source,
                    });
                }
                None => return Err(Error::ShuttingDown),
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        self.shared.ready.close();
    }
}

impl Shared {
    /// The shelf is whole between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<Made> {
        let made = self.lock().made.pop_front();
        self.changed.notify_all();
        made
    }

    fn fill(&self, make: impl Fn() -> Made) {
        loop {
            let made = make();
            let failed = made.is_err();
            if !self.put(made) {
                return;
            }
            if failed {
                std::thread::sleep(Duration::from_millis(RETRY_AFTER_FAILURE_MS));
            }
        }
    }

    /// Waits for room and shelves. A failure is shelved only where nothing else is left, so that it
    /// reaches whoever waits; otherwise it would be old when it is read, and is dropped at the next
    /// change. False: the pool is closed.
    fn put(&self, made: Made) -> bool {
        let mut shelf = self.lock();
        if made.is_err() && !shelf.made.is_empty() && !shelf.closed {
            let shelf = self
                .changed
                .wait(shelf)
                .unwrap_or_else(PoisonError::into_inner);
            return !shelf.closed;
        }
        while !shelf.closed && shelf.made.len() >= shelf.len_max {
            shelf = self
                .changed
                .wait(shelf)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if shelf.closed {
            return false;
        }
        shelf.made.push_back(made);
        drop(shelf);
        self.ready.add_permits(1);
        true
    }
}

/// Makes one namespace; the calling thread is in it afterwards.
fn make(gid_max: u32) -> Made {
    let step = |step: &'static str| move |source| Failure { step, source };
    rcd_sys::netns::unshare_net().map_err(step("unshare(CLONE_NEWNET)"))?;
    rcd_sys::netns::loopback_up().map_err(step("bringing lo up"))?;
    let gid_max = gid_max.min(PING_GID_MAX);
    // Docker sets both: ports below 1024 and ping need no capability inside a container.
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
        .map_err(step("writing net.ipv4.ip_unprivileged_port_start"))?;
    std::fs::write(
        "/proc/sys/net/ipv4/ping_group_range",
        format!("0 {gid_max}"),
    )
    .map_err(step("writing net.ipv4.ping_group_range"))?;
    rcd_sys::netns::current_net().map_err(step("opening /proc/thread-self/ns/net"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[tokio::test]
    async fn a_taken_namespace_is_replaced_and_never_repeated() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&made);
        let pool = Pool::with_maker(2, move || {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(fd())
        });
        let pool = pool.unwrap();
        for _ in 0..20 {
            pool.take().await.unwrap();
        }
        // Each was made for itself; at most the shelf and the one in hand are ahead.
        let made = made.load(Ordering::SeqCst);
        assert!((20..=23).contains(&made), "{made}");
    }

    #[tokio::test]
    async fn a_failure_reaches_the_one_that_waits_and_then_heals() {
        let broken = Arc::new(AtomicBool::new(true));
        let theirs = Arc::clone(&broken);
        let pool = Pool::with_maker(2, move || match theirs.load(Ordering::SeqCst) {
            true => Err(Failure {
                step: "x",
                source: io::Error::from_raw_os_error(28),
            }),
            false => Ok(fd()),
        });
        let pool = pool.unwrap();
        assert!(matches!(pool.take().await, Err(Error::NetNs { .. })));
        broken.store(false, Ordering::SeqCst);
        pool.take().await.unwrap();
    }

    #[tokio::test]
    async fn an_old_failure_is_asked_about_again() {
        let calls = AtomicUsize::new(0);
        let pool = Pool::with_maker(1, move || match calls.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Failure {
                step: "x",
                source: io::Error::from_raw_os_error(28),
            }),
            _ => Ok(fd()),
        });
        pool.unwrap().take().await.unwrap();
    }

    #[test]
    fn a_namespace_has_lo_and_open_ports() {
        let made = std::thread::spawn(|| {
            let fd = make(0)?;
            let listener = std::net::TcpListener::bind("127.0.0.1:1");
            let port = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
            Ok::<_, Failure>((fd, listener.is_ok(), port.unwrap()))
        });
        match made.join().unwrap() {
            Ok((_fd, bound, port)) => {
                assert!(bound);
                assert_eq!(port.trim(), "0");
            }
            Err(Failure { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("skipped: this user may not make a network namespace here");
            }
            Err(failure) => panic!("{failure:?}"),
        }
    }
}
