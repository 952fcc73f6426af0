//! Starts every long-lived part inside tokio, and stops them in the reverse order.
//!
//! ```text
//!   watchdog ─ store ─ runtime ─ engine ─ API          start, then READY=1
//!   SIGTERM, SIGINT, holder gone                       STOPPING=1
//!   API (streams end, calls get a grace) ─ engine      stop
//! ```
//!
//! Containers go on: they are the holder's children.
//!
//! **Without a holder** (no subordinate ids, user namespaces forbidden, …) a daemon that a service
//! manager started serves all the same: every call answers with the reason. After
//! [`HOPELESS_LIFE`] it ends, and the service manager's restart is the next attempt.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcd_engine::{Engine, KernelOverlay, Parts, PlainNetwork};
use rcd_proto::api as wire_api;
use rcd_registry::Registry;
use rcd_runtime::{Joined, Runtime, Settings};
use rcd_store::Store;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::activation::{self, Sockets};
use crate::api::{Daemon, Facts, server};
use crate::config::Config;
use crate::error::Error;
use crate::paths::Paths;

/// Threads of the async runtime at most. Its work is short: calls, wake-ups, pumping logs.
const WORKERS_MAX: usize = 4;

/// Threads for work that may wait for the disk: starts, logs and records, for which two a core would
/// do. Unpacking has threads of its own.
const BLOCKING_MAX: usize = 64;

/// How long a daemon without a holder answers before it tries anew.
const HOPELESS_LIFE: Duration = Duration::from_secs(5);

/// How long blocking work (an unpack, a read of a log) may go on when everything else has ended.
const BLOCKING_PATIENCE: Duration = Duration::from_secs(1);

/// What `main` prepared.
#[derive(Debug)]
pub struct Plan {
    /// Directories.
    pub paths: Paths,
    /// Settings.
    pub config: Config,
    /// Listening sockets.
    pub sockets: Sockets,
    /// The holder, or why there is none.
    pub joined: Result<Joined, String>,
    /// A service manager started this process.
    pub managed: bool,
    /// Name of the user.
    pub user: Option<String>,
}

/// Serves until told to stop.
///
/// # Errors
///
/// The store, the engine or the async runtime cannot start; the holder has ended.
pub fn run(plan: Plan) -> Result<(), Error> {
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_MAX)
        .thread_name("rcd-worker")
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let made = plan.sockets.made.clone();
    let result = runtime.block_on(supervise(plan));
    runtime.shutdown_timeout(BLOCKING_PATIENCE);
    if let Some(made) = made {
        made.remove();
    }
    result
}

async fn supervise(plan: Plan) -> Result<(), Error> {
    let shutdown = CancellationToken::new();
    let watchdog = tokio::spawn(activation::watchdog(shutdown.clone()));
    let Plan {
        paths,
        config,
        sockets,
        joined,
        managed,
        user,
    } = plan;
    let mut facts = Facts {
        data_root: paths.data.clone(),
        run_root: paths.runtime.clone(),
        managed,
        user,
        ..Facts::default()
    };
    let engine = match joined {
        Ok(joined) => {
            facts.holder_pid = joined.holder_pid();
            facts.holder_protocol = joined.protocol();
            facts.cgroup = joined.cgroup().map(PathBuf::from);
            Ok(start_engine(&paths, config, joined).await?)
        }
        Err(reason) => Err(reason),
    };
    let listener = listener(sockets, &paths)?;
    let (status, hopeless) = match &engine {
        Ok(_) => ("serving".to_owned(), false),
        Err(reason) => (reason.clone(), true),
    };
    let daemon = Arc::new(Daemon { engine, facts });
    let table = Arc::new(wire_api::table());
    let serving = server::serve(listener, Arc::clone(&daemon), table, shutdown.clone());
    let serving = tokio::spawn(serving);
    activation::ready(&status);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), status, "rcd serves");

    let result = tokio::select! {
        ended = until_told() => ended,
        orderly = holder_gone(&daemon) => if orderly { Ok(()) } else { Err(Error::HolderGone) },
        () = tokio::time::sleep(HOPELESS_LIFE), if hopeless => Ok(()),
    };

    activation::stopping();
    tracing::info!("rcd stops");
    shutdown.cancel();
    // It ends by itself: each connection is cut after its grace.
    let _ = serving.await;
    if let Ok(engine) = &daemon.engine {
        engine.stop().await;
    }
    let _ = watchdog.await;
    result
}

async fn start_engine(paths: &Paths, config: Config, joined: Joined) -> Result<Engine, Error> {
    let root = paths.data.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&root)).await;
    let opened = opened.map_err(|error| Error::Runtime(error.into()))?;
    let (store, report) = opened.map_err(|source| Error::Store {
        source: Box::new(source),
    })?;
    if let Some(reason) = &report.rebuilt {
        tracing::warn!(reason, "the index was rebuilt from files");
    }
    let (runtime, events) = Runtime::start(joined, Settings::default()).map_err(Error::Join)?;
    let registry = Registry::new(rcd_registry::Config {
        insecure: config.registry.insecure,
        ..rcd_registry::Config::default()
    });
    let parts = Parts {
        store,
        runtime: Arc::new(runtime),
        events,
        rootfs: Box::new(KernelOverlay),
        network: Box::new(PlainNetwork),
        registry,
    };
    Engine::start(parts)
        .await
        .map_err(|error| Error::Engine(Box::new(error)))
}

fn listener(sockets: Sockets, paths: &Paths) -> Result<tokio::net::UnixListener, Error> {
    let failed = |source| Error::Listen {
        path: paths.varlink_socket(),
        source,
    };
    sockets.varlink.set_nonblocking(true).map_err(failed)?;
    tokio::net::UnixListener::from_std(sockets.varlink).map_err(failed)
}

/// Waits for SIGTERM or SIGINT.
async fn until_told() -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Runtime)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Whether the holder had been told to end.
async fn holder_gone(daemon: &Daemon) -> bool {
    match &daemon.engine {
        Ok(engine) => engine.holder_gone().await,
        Err(_) => std::future::pending().await,
    }
}
