//! Kills a process that writes to the store at random moments, many times over the same directory.
//!
//! The child is this test binary again. It says on its stdout what it begins and what was
//! acknowledged; the parent kills it with SIGKILL, opens the store and compares. Every open must
//! succeed without a rebuilt index, and every acknowledged change must be there; a change that was
//! begun and not acknowledged may be there or not. `RCD_KILL_ROUNDS` sets the number of rounds.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and tell as tests do"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rcd_store::{
    ContainerConfig, ContainerRecord, ContainerStatus, Durability, ImageRecord, LayerSource,
    NetworkMode, Ownership, Store,
};
use sha2::{Digest, Sha256};

/// Rounds without `RCD_KILL_ROUNDS`.
const ROUNDS: u64 = 300;

/// Containers that are put and removed again and again.
const CONTAINERS: u64 = 24;

/// Longest life of a child, in microseconds. Opening takes a third of that.
const LIFE_US_MAX: u64 = 40_000;

/// Tells the child where the store is, and its seed.
const CHILD: &str = "RCD_KILL_CHILD";

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// xorshift64: a number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

fn open(path: &Path) -> (Store, rcd_store::OpenReport) {
    Store::open_with(path, Ownership::Ignore).unwrap()
}

fn container(id: &str, code: i32, auto_remove: bool) -> ContainerRecord {
    let config = ContainerConfig {
        auto_remove,
        network: NetworkMode::None,
        env: vec![format!("PADDING={}", "x".repeat(900))],
        ..ContainerConfig::default()
    };
    ContainerRecord {
        id: id.to_owned(),
        name: format!("name-{id}"),
        created_at_ns: 1,
        image: "docker.io/library/debian:12".to_owned(),
        image_id: "sha256:0".to_owned(),
        layers: Vec::new(),
        config,
        status: ContainerStatus::Exited {
            started_at_ns: 1,
            finished_at_ns: 2,
            code: Some(code),
            error: None,
        },
    }
}

fn image(number: u64, mark: u64) -> ImageRecord {
    ImageRecord {
        id: digest_of(number),
        manifest_digest: digest_of(number),
        references: vec![format!("docker.io/library/i:{mark}")],
        created_at_ns: 0,
        size_bytes: 0,
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        author: None,
        diff_ids: Vec::new(),
        entrypoint: Vec::new(),
        command: Vec::new(),
        env: Vec::new(),
        working_dir: String::new(),
        user: String::new(),
        labels: BTreeMap::new(),
        exposed_ports: Vec::new(),
        volumes: Vec::new(),
        stop_signal: None,
    }
}

fn digest_of(number: u64) -> String {
    digest(&number.to_le_bytes())
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// A layer of a few hundred files.
fn layer(seed: u64) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for number in 0..200 {
        let mut header = tar::Header::new_gnu();
        header.set_size(8);
        header.set_mode(0o644);
        let data = (seed + number).to_le_bytes();
        builder
            .append_data(&mut header, format!("dir/{number}"), &data[..])
            .unwrap();
    }
    builder.into_inner().unwrap()
}

/// The child's work, when it is the child.
#[test]
fn child_process() {
    let Ok(argument) = std::env::var(CHILD) else {
        return;
    };
    let (seed, path) = argument.split_once(':').unwrap();
    let seed: u64 = seed.parse().unwrap();
    let mut random = Random::new(seed);
    let (store, report) = open(Path::new(path));
    say(&format!("opened {:?}", report.rebuilt));
    for step in 0.. {
        let code = i32::try_from(seed % 1000 * 1000 + step % 1000).unwrap();
        let id = format!("c{}", random.below(CONTAINERS));
        match random.below(16) {
            0..=4 => put(&store, &id, code, Durability::Synced),
            5..=7 => put(&store, &id, code, Durability::Written),
            8 => {
                // As a container with --rm is made: under an id that had no row before.
                let id = format!("r{code}");
                say(&format!("begin relaxed {id} {code}"));
                store.create_container_dirs(&id, None).unwrap();
                store
                    .put_container(&container(&id, code, true), Durability::Relaxed)
                    .unwrap();
                say(&format!("ack relaxed {id} {code}"));
            }
            9..=11 => remove(&store, &id),
            12 => {
                let number = random.below(4);
                say(&format!("begin image {} {code}", digest_of(number)));
                store
                    .put_image(&image(number, u64::try_from(code).unwrap()))
                    .unwrap();
                say(&format!("ack image {} {code}", digest_of(number)));
            }
            13 => {
                let id = digest_of(random.below(4));
                say(&format!("begin rmi {id} 0"));
                store.remove_image(&id).unwrap();
                say(&format!("ack rmi {id} 0"));
            }
            14 => {
                let bytes = vec![u8::try_from(code % 251).unwrap(); 50_000];
                let digest = digest(&bytes);
                say(&format!("begin blob {digest} 0"));
                store.put_blob(&digest, &bytes).unwrap();
                say(&format!("ack blob {digest} 0"));
            }
            _ => {
                let layer = layer(random.below(1000));
                say(&format!("begin layer {} 0", digest(&layer)));
                store
                    .unpack_layer(&layer[..], &LayerSource::default())
                    .unwrap();
                say(&format!("ack layer {} 0", digest(&layer)));
            }
        }
    }
}

fn put(store: &Store, id: &str, code: i32, durability: Durability) {
    say(&format!("begin put {id} {code}"));
    store
        .put_container(&container(id, code, false), durability)
        .unwrap();
    say(&format!("ack put {id} {code}"));
}

fn remove(store: &Store, id: &str) {
    say(&format!("begin remove {id} 0"));
    store.remove_container(id, Durability::Synced).unwrap();
    say(&format!("ack remove {id} 0"));
}

fn say(line: &str) {
    // One write(2), so that a line is whole or absent.
    let _ = std::io::stdout().write_all(format!("\n{line}\n").as_bytes());
    let _ = std::io::stdout().flush();
}

/// What must be there: by id, the values one of which it must have; none is absence.
#[derive(Default)]
struct Model {
    containers: BTreeMap<String, Vec<Option<i32>>>,
    images: BTreeMap<String, Vec<Option<i32>>>,
    blobs: Vec<String>,
    layers: Vec<String>,
    opened: u64,
    acknowledged: u64,
}

impl Model {
    fn apply(&mut self, output: &str) {
        for line in output.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [step @ ("begin" | "ack"), what, id, code] = words[..] else {
                assert!(
                    !line.starts_with("opened Some"),
                    "the child lost the index: {line}"
                );
                self.opened += u64::from(line == "opened None");
                continue;
            };
            let value = match what {
                "remove" | "rmi" => None,
                _ => Some(code.parse().unwrap()),
            };
            let table = match what {
                "put" | "relaxed" | "remove" => &mut self.containers,
                "image" | "rmi" => &mut self.images,
                _ => {
                    if step == "ack" {
                        let list = if what == "blob" {
                            &mut self.blobs
                        } else {
                            &mut self.layers
                        };
                        list.push(id.to_owned());
                    }
                    continue;
                }
            };
            let values = table.entry(id.to_owned()).or_insert_with(|| vec![None]);
            if step == "ack" {
                self.acknowledged += 1;
                values.clear();
            }
            values.push(value);
        }
    }

    /// Compares, and takes what is there for the truth of the next round.
    fn check(&mut self, store: &Store, recovered: &[String]) {
        let mut found = BTreeMap::new();
        for record in store.containers().unwrap() {
            let ContainerStatus::Exited { code, .. } = record.status else {
                panic!("{record:?}")
            };
            assert!(
                store
                    .container_dirs(&record.id)
                    .root
                    .join("config.json")
                    .exists()
            );
            found.insert(record.id, code);
        }
        for (id, values) in &mut self.containers {
            let code = found.remove(id);
            match code {
                // Of a recovered container only the creation is known.
                Some(None) => assert!(recovered.contains(id), "{id} has lost its code"),
                code => assert!(
                    values.contains(&code.flatten()),
                    "{id}: {code:?}, not {values:?}"
                ),
            }
            *values = vec![code.flatten()];
        }
        assert!(found.is_empty(), "containers from nowhere: {found:?}");
        let images = store.images().unwrap();
        for (id, values) in &mut self.images {
            let image = images.iter().find(|image| image.id == *id);
            let code = image.map(|image| image.references[0].rsplit_once(':').unwrap().1);
            let code = code.map(|code| code.parse().unwrap());
            assert!(values.contains(&code), "{id}: {code:?}, not {values:?}");
            *values = vec![code];
        }
        for digest in self.blobs.drain(..) {
            assert!(store.blob(&digest).unwrap().is_some());
        }
        for diff_id in self.layers.drain(..) {
            let files = std::fs::read_dir(store.layer_path(&diff_id).join("dir")).unwrap();
            assert_eq!(files.count(), 200);
        }
    }
}

#[test]
fn whatever_was_acknowledged_survives_a_kill_at_any_moment() {
    let rounds = std::env::var("RCD_KILL_ROUNDS")
        .ok()
        .map_or(ROUNDS, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let mut random = Random::new(7);
    let mut model = Model::default();
    for round in 0..rounds {
        model.apply(&kill_one(&path, round, random.below(LIFE_US_MAX)));
        let (store, report) = open(&path);
        assert_eq!(report.rebuilt, None, "round {round}");
        assert_eq!(report.unreadable, Vec::<String>::new(), "round {round}");
        model.check(&store, &report.recovered);
        // Containers with --rm are removed by whoever finds them ended.
        for id in model.containers.keys().filter(|id| id.starts_with('r')) {
            store.remove_container(id, Durability::Relaxed).unwrap();
        }
        model.containers.retain(|id, _| !id.starts_with('r'));
        assert_eq!(
            left_unfinished(&path),
            Vec::<String>::new(),
            "round {round}"
        );
        if round % 50 == 0 {
            store.collect_layers(&[]).unwrap();
            store.collect_blobs(&[]).unwrap();
            store.empty_trash().unwrap();
        }
    }
    let (opened, acknowledged) = (model.opened, model.acknowledged);
    println!("{rounds} kills, {opened} after the open, {acknowledged} acknowledged changes");
    assert!(
        acknowledged > rounds / 10,
        "children were killed before they did anything"
    );
}

fn kill_one(path: &Path, seed: u64, life_us: u64) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_process",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, format!("{seed}:{}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_micros(life_us));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut output = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    output
}

fn left_unfinished(path: &Path) -> Vec<String> {
    ["layers", "containers", "images", "blobs/sha256"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(path.join(folder)).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect()
}
