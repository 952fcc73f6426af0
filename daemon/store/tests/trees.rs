//! Random trees, packed by the system's tar in each of its formats, come out as they went in.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and tell as tests do"
)]

mod support;

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rcd_store::LayerSource;
use support::Fixture;

/// Trees tried for each format.
const TREES: u64 = 6;

/// Formats that keep holes, times and long names each in its own way.
const FORMATS: [&[&str]; 5] = [
    &["--format=gnu", "--sparse"],
    &["--format=pax", "--sparse", "--sparse-version=0.0"],
    &["--format=pax", "--sparse", "--sparse-version=0.1"],
    &["--format=pax", "--sparse", "--sparse-version=1.0"],
    &["--format=posix"],
];

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 33
}

/// Fills `dir`, with names of all lengths, holes, links and modes.
fn grow(dir: &Path, state: &mut u64, depth: u64) {
    let mut last_file = None;
    for number in 0..=random(state) % 8 {
        let length = usize::try_from(1 + random(state) % 200).unwrap();
        let path = dir.join(format!("{number}-{}", "ü n".repeat(length / 4)));
        let bits = u32::try_from(random(state)).unwrap() & 0o7077;
        match random(state) % 6 {
            0 if depth < 4 => {
                fs::create_dir(&path).unwrap();
                grow(&path, state, depth + 1);
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700 | bits)).unwrap();
            }
            1 => symlink("../".repeat(length % 60) + "x", &path).unwrap(),
            2 if last_file.is_some() => fs::hard_link(last_file.as_ref().unwrap(), &path).unwrap(),
            _ => {
                let file = File::create(&path).unwrap();
                for _ in 0..random(state) % 9 {
                    let data = vec![7; usize::try_from(random(state) % 9000).unwrap()];
                    file.write_all_at(&data, random(state) % (1 << 22)).unwrap();
                }
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600 | bits)).unwrap();
                last_file = Some(path);
            }
        }
    }
}

/// Everything that must be equal, as text.
fn describe(dir: &Path, text: &mut String) {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    for path in names {
        let found = fs::symlink_metadata(&path).unwrap();
        let (mode, time) = (found.mode(), found.mtime());
        write!(text, "{:?} {mode:o} {time} ", path.file_name().unwrap()).unwrap();
        if found.is_dir() {
            text.push_str("{\n");
            describe(&path, text);
            text.push('}');
        } else if found.is_symlink() {
            write!(text, "{:?}", fs::read_link(&path).unwrap()).unwrap();
        } else {
            let data = support::digest(&fs::read(&path).unwrap());
            write!(text, "{} {} {data}", found.nlink(), found.size()).unwrap();
        }
        text.push('\n');
    }
}

#[test]
fn trees_come_out_as_they_went_in() {
    let fixture = Fixture::new();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for (number, format) in (0..TREES).flat_map(|n| FORMATS.map(|format| (n, format))) {
        let dir = tempfile::tempdir().unwrap();
        grow(dir.path(), &mut state, 0);
        let archive = Command::new("tar")
            .args(format)
            .args(["-cf", "-", "-C"])
            .arg(dir.path())
            .arg(".")
            .output()
            .unwrap();
        assert!(archive.status.success(), "{archive:?}");
        let unpacked = fixture
            .store
            .unpack_layer(&archive.stdout[..], &LayerSource::default())
            .unwrap();
        let (mut before, mut after) = (String::new(), String::new());
        describe(dir.path(), &mut before);
        describe(&fixture.store.layer_path(&unpacked.diff_id), &mut after);
        assert_eq!(before, after, "tree {number}, {format:?}");
    }
}

#[test]
fn holes_stay_holes() {
    let fixture = Fixture::new();
    for format in FORMATS.iter().filter(|format| format.contains(&"--sparse")) {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"middle", 32 << 20).unwrap();
        let mut tar = Command::new("tar");
        tar.args(*format)
            .args(["-cf", "-", "-C"])
            .arg(dir.path())
            .arg("f");
        let archive = tar.output().unwrap().stdout;
        let unpacked = fixture
            .store
            .unpack_layer(&archive[..], &LayerSource::default())
            .unwrap();
        let found = fs::metadata(fixture.store.layer_path(&unpacked.diff_id).join("f")).unwrap();
        assert_eq!(found.size(), 64 << 20, "{format:?}");
        assert!(
            found.blocks() * 512 < 1 << 20,
            "{format:?}: {} blocks",
            found.blocks()
        );
    }
}
