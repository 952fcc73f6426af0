//! Unpacking layers: what archives may hold, and what they may not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and tell as tests do"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use rcd_store::{Compression, Error, LayerSource, UnpackedLayer};
use support::{Archive, Fixture, digest, messages};

fn unpack(fixture: &Fixture, archive: &[u8]) -> Result<UnpackedLayer, Error> {
    fixture.store.unpack_layer(archive, &LayerSource::default())
}

/// Unpacks an archive that is right, and returns its directory.
fn layer(fixture: &Fixture, archive: Archive) -> std::path::PathBuf {
    let unpacked = unpack(fixture, &archive.finish()).unwrap();
    fixture.store.layer_path(&unpacked.diff_id)
}

/// Claims that an archive is refused with these words, and that nothing is left or touched.
#[track_caller]
fn check_refused(archive: Archive, words: &[&str]) {
    let fixture = Fixture::new();
    let error = unpack(&fixture, &archive.finish()).unwrap_err();
    let message = messages(&error);
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
    fixture.check_nothing_left();
}

#[test]
fn entries_that_lead_out_are_refused() {
    for name in ["../sentinel", "a/../../sentinel", "/../sentinel", ".."] {
        check_refused(
            Archive::new().file(name, b"x"),
            &[name, "leads out of the layer"],
        );
        check_refused(
            Archive::new().dir(name, 0o755),
            &[name, "leads out of the layer"],
        );
    }
    let hostile = Archive::new().hard_link("a", "../../sentinel");
    check_refused(hostile, &["\"a\"", "leads out of the layer"]);
    let whiteout = Archive::new().file("a/.wh...", b"");
    check_refused(whiteout, &["whiteout of nothing"]);
}

#[test]
fn links_that_point_out_stay_links_and_nothing_is_written_through_them() {
    let fixture = Fixture::new();
    let outside = fixture.sentinel.display().to_string();
    let archive = Archive::new()
        .dir("tmp", 0o755)
        .symlink("out", &outside)
        .symlink("up", "../../../../../../../../tmp")
        .file("up/through", b"inside")
        .file("victim", b"x")
        .symlink("last", "victim")
        .file("last", b"new");
    let dir = layer(&fixture, archive);
    assert_eq!(fs::read_link(dir.join("out")).unwrap(), Path::new(&outside));
    assert_eq!(
        fs::read(dir.join("tmp/through")).unwrap_or_default(),
        b"inside"
    );
    assert_eq!(fs::read(dir.join("victim")).unwrap(), b"x");
    assert_eq!(fs::read(dir.join("last")).unwrap(), b"new");
    fixture.check_sentinel();
}

#[test]
fn a_hard_link_must_have_its_target_in_the_layer() {
    check_refused(
        Archive::new().hard_link("a", "missing"),
        &["\"missing\"", "not in the layer"],
    );
    check_refused(
        Archive::new().hard_link("a", "/etc/passwd"),
        &["not in the layer"],
    );
    check_refused(
        Archive::new().dir("d", 0o755).hard_link("a", "d"),
        &["is a directory"],
    );
    check_refused(
        Archive::new().file("a", b"").hard_link("a", "a"),
        &["links to itself"],
    );
    let whiteout = Archive::new().file(".wh.gone", b"").hard_link("a", "gone");
    check_refused(whiteout, &["not in the layer"]);
    let fixture = Fixture::new();
    let dir = layer(
        &fixture,
        Archive::new().file("d/a", b"x").hard_link("b", "/d/a"),
    );
    let (a, b) = (
        fs::metadata(dir.join("d/a")).unwrap(),
        fs::metadata(dir.join("b")).unwrap(),
    );
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
}

#[test]
fn names_too_long_for_linux_are_refused() {
    let long = "x".repeat(256);
    check_refused(Archive::new().file(&long, b""), &["256 bytes", "255"]);
    let deep = "ab/".repeat(1500);
    check_refused(
        Archive::new().file(&deep[..4499], b""),
        &["4499 bytes", "4096"],
    );
}

#[test]
fn long_names_and_link_targets_are_kept() {
    let fixture = Fixture::new();
    let name = format!("{}/{}", "a".repeat(200), "b".repeat(200));
    let target = "t/".repeat(300);
    let dir = layer(
        &fixture,
        Archive::new().file(&name, b"x").symlink("link", &target),
    );
    assert_eq!(fs::read(dir.join(&name)).unwrap(), b"x");
    assert_eq!(fs::read_link(dir.join("link")).unwrap(), Path::new(&target));
}

#[test]
fn devices_are_left_out_and_pipes_made() {
    let fixture = Fixture::new();
    let archive = Archive::new()
        .special("null", tar::EntryType::Char)
        .special("disk", tar::EntryType::Block)
        .special("pipe", tar::EntryType::Fifo);
    let unpacked = unpack(&fixture, &archive.finish()).unwrap();
    let dir = fixture.store.layer_path(&unpacked.diff_id);
    assert_eq!(unpacked.devices_skipped, 2);
    assert!(!dir.join("null").exists() && !dir.join("disk").exists());
    assert!(
        fs::metadata(dir.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
}

#[test]
fn modes_and_times_are_kept_for_directories_too() {
    let fixture = Fixture::new();
    let archive = Archive::new()
        .dir("closed", 0o555)
        .dir("sticky", 0o1777)
        .mode_file("setuid", 0o4755)
        .file("closed/file", b"x");
    let dir = layer(&fixture, archive);
    let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("closed"), 0o555);
    assert_eq!(mode("sticky"), 0o1777);
    assert_eq!(mode("setuid"), 0o4755);
    for name in ["closed", "closed/file", "sticky"] {
        assert_eq!(
            fs::metadata(dir.join(name)).unwrap().mtime(),
            support::TIME,
            "{name}"
        );
    }
}

#[test]
fn a_later_entry_replaces_an_earlier_one_of_another_type() {
    let fixture = Fixture::new();
    let archive = Archive::new()
        .file("a", b"file")
        .dir("a", 0o755)
        .file("a/b", b"x")
        .dir("c", 0o755)
        .file("c/d/e", b"x")
        .file("c", b"file")
        .symlink("l", "a")
        .dir("l", 0o755);
    let dir = layer(&fixture, archive);
    assert_eq!(fs::read(dir.join("a/b")).unwrap(), b"x");
    assert_eq!(fs::read(dir.join("c")).unwrap(), b"file");
    assert!(fs::symlink_metadata(dir.join("l")).unwrap().is_dir());
    check_refused(
        Archive::new().symlink(".", "/tmp"),
        &["replace the layer's root"],
    );
    check_refused(Archive::new().file("a", b"").file("a/b", b""), &["a/b"]);
    check_refused(
        Archive::new().symlink("a", "nowhere").file("a/b", b""),
        &["a/b"],
    );
}

#[test]
fn whiteouts_become_those_of_overlay() {
    let fixture = Fixture::new();
    let archive = Archive::new()
        .file("d/.wh.gone", b"")
        .file("o/.wh.early", b"")
        .file("o/.wh..wh..opq", b"")
        .file("o/s/.wh.late", b"")
        .file("o/kept", b"x")
        .file(".wh..wh.plnk", b"")
        .file("e/f", b"x")
        .file(".wh.e", b"")
        .file(".wh.n", b"")
        .dir("n", 0o755);
    let dir = layer(&fixture, archive);
    let gone = fs::symlink_metadata(dir.join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for opaque in ["o", "e", "n"] {
        assert_eq!(
            support::xattr(&dir.join(opaque), c"user.overlay.opaque"),
            Some(b"y".to_vec())
        );
    }
    for absent in ["o/early", "o/s/late", ".wh..wh.plnk", ".wh.e", "d/.wh.gone"] {
        assert!(fs::symlink_metadata(dir.join(absent)).is_err(), "{absent}");
    }
    assert_eq!(fs::read(dir.join("o/kept")).unwrap(), b"x");
    assert_eq!(fs::read(dir.join("e/f")).unwrap(), b"x");
}

#[test]
fn attributes_are_kept_and_those_of_overlay_escaped() {
    let fixture = Fixture::new();
    let archive = Archive::new().pax_file(
        "f",
        &[
            ("SCHILY.xattr.user.plain", b"a\nb\0c"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.containers.override_stat", b"0:0:0755"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("mtime", b"1000000000.123456789"),
        ],
    );
    let unpacked = unpack(&fixture, &archive.finish()).unwrap();
    let file = fixture.store.layer_path(&unpacked.diff_id).join("f");
    assert_eq!(
        support::xattr(&file, c"user.plain"),
        Some(b"a\nb\0c".to_vec())
    );
    assert_eq!(support::xattr(&file, c"user.overlay.opaque"), None);
    assert_eq!(
        support::xattr(&file, c"user.overlay.overlay.opaque"),
        Some(b"y".to_vec())
    );
    assert_eq!(
        support::xattr(&file, c"user.containers.override_stat"),
        None
    );
    assert_eq!(unpacked.attributes_skipped, 2);
    let found = fs::metadata(&file).unwrap();
    assert_eq!(
        (found.mtime(), found.mtime_nsec()),
        (1_000_000_000, 123_456_789)
    );
}

#[test]
fn headers_that_would_fill_memory_are_refused() {
    check_refused(
        Archive::new().claim(tar::EntryType::XHeader, 1 << 40),
        &["extension header"],
    );
    check_refused(
        Archive::new().claim(tar::EntryType::GNULongName, 1 << 30),
        &["extension header"],
    );
    let mut endless = Archive::new();
    for _ in 0..20 {
        endless = endless.claim(tar::EntryType::XHeader, 0);
    }
    check_refused(endless, &["extension headers"]);
}

#[test]
fn damaged_and_truncated_archives_are_refused() {
    let whole = Archive::new().file("a", &[7; 5000]).finish();
    for len in [100, 512, 1000, 5000] {
        let fixture = Fixture::new();
        let error = unpack(&fixture, &whole[..len]).unwrap_err();
        assert!(matches!(error, Error::Archive { .. }), "{len}: {error:?}");
        fixture.check_nothing_left();
    }
    let fixture = Fixture::new();
    assert!(unpack(&fixture, &[b'x'; 2000]).is_err());
    fixture.check_nothing_left();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_compression_is_recognised_and_both_digests_are_told() {
    let plain = Archive::new().file("a", &[3; 300_000]).finish();
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let zstd = ruzstd::encoding::compress_to_vec(&plain[..], level);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd].concat();
    let (head, tail) = plain.split_at(1000);
    let members = [gzip(head), gzip(tail)].concat();
    for compressed in [plain.clone(), gzip(&plain), members, zstd, skippable] {
        let fixture = Fixture::new();
        let unpacked = unpack(&fixture, &compressed).unwrap();
        assert_eq!(unpacked.digest, digest(&compressed));
        assert_eq!(unpacked.diff_id, digest(&plain));
        assert_eq!(
            fixture.store.layer_size(&unpacked.diff_id).unwrap(),
            Some(300_000)
        );
    }
}

#[test]
fn what_is_not_as_announced_is_refused() {
    let plain = Archive::new().file("a", &[3; 3000]).finish();
    let mut gzip = gzip(&plain);
    let right = LayerSource {
        digest: Some(digest(&gzip)),
        size: Some(gzip.len() as u64),
        diff_id: Some(digest(&plain)),
        compression: Compression::Gzip,
    };
    let other = Some(digest(b"other"));
    let lies = [
        (
            LayerSource {
                digest: other.clone(),
                ..right.clone()
            },
            "layer: digest is",
        ),
        (
            LayerSource {
                diff_id: other,
                ..right.clone()
            },
            "uncompressed layer: digest is",
        ),
        (
            LayerSource {
                size: Some(10),
                ..right.clone()
            },
            "expected 10",
        ),
        (
            LayerSource {
                size: Some(1 << 20),
                ..right.clone()
            },
            "expected 1048576",
        ),
        (
            LayerSource {
                digest: Some("md5:1".to_owned()),
                ..right.clone()
            },
            "not a sha256 digest",
        ),
    ];
    let fixture = Fixture::new();
    for (lie, words) in lies {
        let error = fixture.store.unpack_layer(&gzip[..], &lie).unwrap_err();
        assert!(messages(&error).contains(words), "{error:?}");
        fixture.check_nothing_left();
    }
    // A flipped bit breaks the decompression first, and is blamed on the content all the same.
    let middle = gzip.len() / 2;
    gzip[middle] ^= 1;
    let error = fixture.store.unpack_layer(&gzip[..], &right).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    fixture.check_nothing_left();
}

#[test]
fn a_source_that_breaks_off_is_told_with_its_own_error() {
    struct Broken<'a>(&'a [u8]);
    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(std::io::Error::other("connection reset by the test")),
                got => Ok(got),
            }
        }
    }
    let fixture = Fixture::new();
    let whole = Archive::new().file("a", &[3; 30_000]).finish();
    let wanted = LayerSource {
        digest: Some(digest(&whole)),
        ..LayerSource::default()
    };
    let error = fixture
        .store
        .unpack_layer(Broken(&whole[..9000]), &wanted)
        .unwrap_err();
    assert!(
        messages(&error).contains("connection reset by the test"),
        "{error:?}"
    );
    fixture.check_nothing_left();
}

#[test]
fn of_two_that_unpack_one_layer_both_succeed() {
    let fixture = Fixture::new();
    let archive = Archive::new().file("a", &[9; 100_000]).finish();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| unpack(&fixture, &archive).unwrap());
        }
    });
    assert!(fixture.store.has_layer(&digest(&archive)));
    assert_eq!(fixture.names("layers").len(), 2);
}
