//! The engine over a real store and a fake runtime: lifecycle, clean-up, restart.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use rcd_registry::{Config, Registry};
use rcd_runtime::{
    ContainerOptions, Event, ExecOptions, Exit, Failure, Process, ProcessKey, Slot, Stdio, Step,
};
use rcd_store::{ImageRecord, Store};
use tokio::sync::mpsc;

use crate::container::lifecycle::Phase;
use crate::platform::{KernelOverlay, PlainNetwork, Runtime, RuntimeResult};
use crate::types::{AttachRequest, ContainerRequest, Output};
use crate::{Engine, Error, Parts};

/// Processes that exist only in a table. Survives an engine, as the holder does.
#[derive(Default)]
struct Fake {
    processes: Mutex<BTreeMap<ProcessKey, Entry>>,
    events: Mutex<Option<mpsc::Sender<Event>>>,
    failures: Mutex<VecDeque<Failure>>,
    acknowledged: Mutex<Vec<ProcessKey>>,
}

struct Entry {
    /// Write ends of stdout and stderr, held by the "process".
    writers: Option<(std::fs::File, OwnedFd)>,
    readers: (OwnedFd, OwnedFd),
    exit: Option<Exit>,
}

impl Fake {
    fn key(id: &str) -> ProcessKey {
        ProcessKey {
            container: id.to_owned(),
            exec: None,
        }
    }

    fn write(&self, id: &str, text: &str) {
        use std::io::Write;
        let mut processes = self.processes.lock().unwrap();
        let entry = processes.get_mut(&Fake::key(id)).unwrap();
        entry
            .writers
            .as_mut()
            .unwrap()
            .0
            .write_all(text.as_bytes())
            .unwrap();
    }

    fn exit(&self, id: &str, code: i32) {
        let key = Fake::key(id);
        let exit = Exit {
            code,
            signal: 0,
            at_ns: 5,
        };
        let mut processes = self.processes.lock().unwrap();
        let entry = processes.get_mut(&key).unwrap();
        entry.writers = None;
        entry.exit = Some(exit);
        if let Some(events) = &*self.events.lock().unwrap() {
            let _ = events.try_send(Event::Exited { key, exit });
        }
    }

    fn process(key: &ProcessKey, entry: &Entry) -> Process {
        let (stdout, stderr) = &entry.readers;
        Process {
            key: key.clone(),
            pid: 42,
            started_at_ns: 1,
            exit: entry.exit,
            pidfd: None,
            stdio: Stdio {
                stdout: Some(stdout.try_clone().unwrap()),
                stderr: Some(stderr.try_clone().unwrap()),
                ..Stdio::default()
            },
        }
    }
}

impl Runtime for Fake {
    fn spawn(&self, options: ContainerOptions) -> BoxFuture<'_, RuntimeResult<Process>> {
        let key = Fake::key(&options.id);
        if let Some(failure) = self.failures.lock().unwrap().pop_front() {
            let failure = Box::new(failure);
            let error = rcd_runtime::Error::Start {
                key,
                failure,
                exit_code: 127,
            };
            return async { Err(error) }.boxed();
        }
        let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let (stdout, out) = pipe2(flags).unwrap();
        let (stderr, err) = pipe2(flags).unwrap();
        let writers = Some((out.into(), err));
        let entry = Entry {
            writers,
            readers: (stdout, stderr),
            exit: None,
        };
        let process = Fake::process(&key, &entry);
        self.processes.lock().unwrap().insert(key, entry);
        async { Ok(process) }.boxed()
    }

    fn exec(&self, _options: ExecOptions) -> BoxFuture<'_, RuntimeResult<Process>> {
        async { Err(rcd_runtime::Error::HolderGone) }.boxed()
    }

    fn list(&self) -> BoxFuture<'_, RuntimeResult<Vec<Process>>> {
        let processes = self.processes.lock().unwrap();
        let all = processes
            .iter()
            .map(|(key, entry)| Fake::process(key, entry))
            .collect();
        async { Ok(all) }.boxed()
    }

    fn acknowledge(&self, key: ProcessKey) -> BoxFuture<'_, ()> {
        self.processes.lock().unwrap().remove(&key);
        self.acknowledged.lock().unwrap().push(key);
        async {}.boxed()
    }

    fn drop_kept(&self, _key: ProcessKey, _slot: Slot) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn remove_cgroup(&self, _container: &str) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }

    fn remove_stray_cgroups(&self, _live: Vec<String>) -> BoxFuture<'_, Vec<String>> {
        async { Vec::new() }.boxed()
    }

    fn cgroup(&self, _container: &str) -> Option<PathBuf> {
        None
    }
}

struct World {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    engine: Engine,
}

const LAYER: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

impl World {
    async fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("data")).unwrap().0;
        let image = ImageRecord {
            id: LAYER.replace('1', "2"),
            manifest_digest: LAYER.replace('1', "3"),
            references: vec!["docker.io/library/i:latest".to_owned()],
            diff_ids: vec![LAYER.to_owned()],
            command: vec!["sh".to_owned()],
            ..ImageRecord::default()
        };
        std::fs::create_dir(store.layer_path(LAYER)).unwrap();
        store.put_image(&image).unwrap();
        let fake = Arc::new(Fake::default());
        let engine = World::engine(store, &fake).await;
        World { dir, fake, engine }
    }

    async fn engine(store: Store, fake: &Arc<Fake>) -> Engine {
        let (sender, events) = mpsc::channel(64);
        for (key, entry) in &*fake.processes.lock().unwrap() {
            if let Some(exit) = entry.exit {
                sender
                    .try_send(Event::Exited {
                        key: key.clone(),
                        exit,
                    })
                    .unwrap();
            }
        }
        *fake.events.lock().unwrap() = Some(sender);
        let parts = Parts {
            store,
            runtime: Arc::clone(fake) as Arc<dyn Runtime>,
            events,
            rootfs: Box::new(KernelOverlay),
            network: Box::new(PlainNetwork),
            registry: Registry::new(Config::default()),
        };
        Engine::start(parts).await.unwrap()
    }

    /// A new engine over what the old one left.
    async fn restart(self) -> World {
        let World { dir, fake, engine } = self;
        engine.stop().await;
        let path = dir.path().join("data");
        drop(engine);
        let store = loop {
            match Store::open(&path) {
                Ok((store, _)) => break store,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let engine = World::engine(store, &fake).await;
        World { dir, fake, engine }
    }

    async fn create(&self, name: &str, auto_remove: bool) -> String {
        let request = ContainerRequest {
            image: "i".to_owned(),
            name: Some(name.to_owned()),
            auto_remove,
            ..ContainerRequest::default()
        };
        self.engine.create(request).await.unwrap().record.id.clone()
    }

    fn phase(&self, id: &str) -> Phase {
        self.engine.container(id).unwrap().view.phase
    }

    fn container_dirs(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("data/containers"))
            .unwrap()
            .count()
    }

    async fn until(&self, mut done: impl FnMut() -> bool) {
        for _ in 0..1000 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it did not come to pass");
    }
}

#[tokio::test]
async fn a_container_runs_ends_and_is_started_again() {
    let world = World::new().await;
    let id = world.create("db", false).await;
    assert_eq!(world.phase("db"), Phase::Created);
    for code in [3, 0] {
        world.engine.start_container("db").await.unwrap();
        assert_eq!(world.phase(&id[..8]), Phase::Running);
        world.fake.exit(&id, code);
        assert_eq!(world.engine.wait("db").await.unwrap(), Some(code));
        assert_eq!(world.phase("db"), Phase::Exited);
        let fake = &world.fake;
        world
            .until(|| fake.processes.lock().unwrap().is_empty())
            .await;
    }
}

#[tokio::test]
async fn output_and_exit_code_reach_an_attached_client_in_order() {
    let world = World::new().await;
    let id = world.create("db", true).await;
    let request = AttachRequest {
        container: id.clone(),
        start: true,
        ..Default::default()
    };
    let mut session = world.engine.attach(request).await.unwrap();
    world.fake.write(&id, "hello");
    assert_eq!(
        session.next().await.unwrap(),
        Output::Stdout("hello".into())
    );
    world.fake.write(&id, "bye");
    world.fake.exit(&id, 7);
    assert_eq!(session.next().await.unwrap(), Output::Stdout("bye".into()));
    assert_eq!(session.next().await.unwrap(), Output::Exit(7));

    let again = AttachRequest {
        container: id,
        offsets: Some((6, 0)),
        ..Default::default()
    };
    let mut session = world.engine.attach(again).await.unwrap();
    assert_eq!(session.next().await.unwrap(), Output::Stdout("ye".into()));
    assert_eq!(session.next().await.unwrap(), Output::Exit(7));
}

#[tokio::test]
async fn a_container_removed_at_its_end_frees_its_name_before_anybody_hears_of_it() {
    let world = World::new().await;
    for _ in 0..5 {
        let id = world.create("db", true).await;
        world.engine.start_container(&id).await.unwrap();
        world.fake.exit(&id, 1);
        assert_eq!(world.engine.wait(&id).await.unwrap(), Some(1));
        assert!(matches!(
            world.engine.container("db"),
            Err(Error::NoSuchContainer { .. })
        ));
    }
    world.until(|| world.container_dirs() == 0).await;
    let fake = &world.fake;
    world
        .until(|| fake.processes.lock().unwrap().is_empty())
        .await;
}

#[tokio::test]
async fn a_failed_start_says_why_and_leaves_nothing_of_a_container_to_be_removed() {
    let world = World::new().await;
    let failure = || Failure {
        step: Step::Exec,
        object: "nosuch".to_owned(),
        errno: 2,
        detail: String::new(),
    };
    let id = world.create("keep", false).await;
    world.fake.failures.lock().unwrap().push_back(failure());
    let error = world.engine.start_container(&id).await.unwrap_err();
    assert!(
        matches!(error, Error::StartFailed { exit_code: 127, .. }),
        "{error:?}"
    );
    let view = world.engine.container(&id).unwrap().view;
    assert_eq!((view.phase, view.exit_code), (Phase::Exited, Some(127)));

    let id = world.create("gone", true).await;
    world.fake.failures.lock().unwrap().push_back(failure());
    world.engine.start_container(&id).await.unwrap_err();
    assert!(world.engine.container(&id).is_err());
    world.until(|| world.container_dirs() == 1).await;
}

#[tokio::test]
async fn a_running_container_is_removed_only_by_force() {
    let world = World::new().await;
    let id = world.create("db", false).await;
    world.engine.start_container(&id).await.unwrap();
    let error = world.engine.remove_container(&id, false).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::WrongPhase {
                action: "remove",
                ..
            }
        ),
        "{error:?}"
    );
    let engine = world.engine.clone();
    let wanted = id.clone();
    let removal = tokio::spawn(async move { engine.remove_container(&wanted, true).await });
    tokio::task::yield_now().await;
    world.fake.exit(&id, 137);
    removal.await.unwrap().unwrap();
    assert!(world.engine.container(&id).is_err());
    assert_eq!(world.container_dirs(), 0);
}

#[tokio::test]
async fn a_name_is_taken_once_and_free_after_removal() {
    let world = World::new().await;
    world.create("db", false).await;
    let request = ContainerRequest {
        image: "i".to_owned(),
        name: Some("db".to_owned()),
        ..ContainerRequest::default()
    };
    let error = world.engine.create(request.clone()).await.unwrap_err();
    assert!(matches!(error, Error::NameInUse { .. }), "{error:?}");
    world.engine.remove_container("db", false).await.unwrap();
    world.engine.create(request).await.unwrap();
}

#[tokio::test]
async fn a_create_that_nobody_waits_for_is_undone() {
    let world = World::new().await;
    let request = ContainerRequest {
        image: "i".to_owned(),
        ..ContainerRequest::default()
    };
    assert!(world.engine.create(request).now_or_never().is_none());
    world
        .until(|| world.engine.containers().is_empty() && world.container_dirs() == 0)
        .await;
}

#[tokio::test]
async fn a_successor_takes_up_what_runs_and_what_ended_meanwhile() {
    let world = World::new().await;
    let runs = world.create("runs", false).await;
    let ends = world.create("ends", false).await;
    let unseen = world.create("unseen", false).await;
    let removed = world.create("removed", true).await;
    for id in [&runs, &ends, &unseen, &removed] {
        world.engine.start_container(id).await.unwrap();
    }
    world.fake.write(&ends, "first ");
    world.engine.stop().await;
    world.fake.write(&runs, "written while nobody looked");
    world.fake.write(&ends, "last words");
    world.fake.exit(&ends, 9);
    world.fake.exit(&removed, 4);
    world
        .fake
        .processes
        .lock()
        .unwrap()
        .remove(&Fake::key(&unseen));
    let world = world.restart().await;

    let view = world.engine.container(&runs).unwrap().view;
    assert_eq!((view.phase, view.error), (Phase::Running, None));
    assert_eq!(view.finished_at_ns, 0);
    let attach = AttachRequest {
        container: runs.clone(),
        offsets: Some((0, 0)),
        ..Default::default()
    };
    let mut session = world.engine.attach(attach).await.unwrap();
    assert_eq!(
        session.next().await.unwrap(),
        Output::Stdout("written while nobody looked".into())
    );

    assert_eq!(world.engine.wait(&ends).await.unwrap(), Some(9));
    let attach = AttachRequest {
        container: ends,
        offsets: Some((0, 0)),
        ..Default::default()
    };
    let mut session = world.engine.attach(attach).await.unwrap();
    let mut text = Vec::new();
    while let Output::Stdout(bytes) = session.next().await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    assert_eq!(text, b"first last words");

    let view = world.engine.container(&unseen).unwrap().view;
    assert_eq!((view.phase, view.exit_code), (Phase::Exited, None));
    assert!(view.error.is_some());

    assert_eq!(world.engine.wait(&removed).await.unwrap(), Some(4));
    assert!(world.engine.container("removed").is_err());
}

#[tokio::test]
async fn an_image_in_use_stays_until_its_containers_go() {
    let world = World::new().await;
    world.create("db", false).await;
    let error = world.engine.remove_image("i", false).await.unwrap_err();
    assert!(matches!(error, Error::ImageInUse { .. }), "{error:?}");
    let removal = world.engine.remove_image("i", true).await.unwrap();
    assert_eq!(removal.untagged, ["docker.io/library/i:latest"]);
    assert_eq!(removal.deleted.len(), 1);
    assert!(world.engine.containers().is_empty());
    assert!(world.engine.image("i").is_err());
}

#[tokio::test]
async fn a_container_to_be_removed_at_its_end_outlives_a_restart_before_its_start() {
    let world = World::new().await;
    let unstarted = world.create("unstarted", true).await;
    let started = world.create("started", true).await;
    world.engine.start_container(&started).await.unwrap();
    // What the first mount makes; the holder then forgets the process, as a new one would.
    let work = world.engine.paths(&started).unwrap().dirs.work;
    std::fs::create_dir(work.join("work")).unwrap();
    let fake = Arc::clone(&world.fake);
    fake.processes.lock().unwrap().clear();
    let world = world.restart().await;
    assert_eq!(world.phase(&unstarted), Phase::Created);
    assert!(world.engine.container(&started).is_err());
    world.engine.start_container(&unstarted).await.unwrap();
}
