//! Opening the store: what is refused, what is put right, what is built again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and tell as tests do"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcd_store::{ContainerStatus, Durability, Error, LayerSource, Ownership, Store};
use support::{Archive, Fixture, container, digest, image, messages};

/// Closes the store, changes its directory, and opens it again.
fn reopen(
    fixture: Fixture,
    change: impl FnOnce(&std::path::Path),
) -> (
    tempfile::TempDir,
    Result<(Store, rcd_store::OpenReport), Error>,
) {
    let Fixture { dir, store, .. } = fixture;
    drop(store);
    let root = dir.path().join("data");
    change(&root);
    let opened = Store::open_with(&root, Ownership::Ignore);
    (dir, opened)
}

fn filled() -> (Fixture, String) {
    let fixture = Fixture::new();
    let layer = Archive::new().file("a", b"x").finish();
    let unpacked = fixture
        .store
        .unpack_layer(&layer[..], &LayerSource::default())
        .unwrap();
    fixture.store.put_image(&image(&unpacked.diff_id)).unwrap();
    for id in ["one", "two"] {
        fixture.store.create_container_dirs(id, None).unwrap();
        fixture
            .store
            .put_container(&container(id), Durability::Synced)
            .unwrap();
    }
    (fixture, unpacked.diff_id)
}

#[test]
fn a_containers_root_has_the_mode_of_its_topmost_layers() {
    let (fixture, diff_id) = filled();
    let layer = fixture.store.layer_path(&diff_id);
    fs::set_permissions(&layer, fs::Permissions::from_mode(0o1711)).unwrap();
    let dirs = fixture
        .store
        .create_container_dirs("three", Some(&diff_id))
        .unwrap();
    let mode = fs::metadata(dirs.upper).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1711);
}

#[test]
fn a_damaged_index_is_set_aside_and_built_again() {
    let (fixture, diff_id) = filled();
    let (_dir, opened) = reopen(fixture, |root| {
        for name in ["db", "conf"] {
            fs::write(root.join("index").join(name), vec![0x5a; 4096]).unwrap();
        }
    });
    let (store, report) = opened.unwrap();
    assert!(report.rebuilt.is_some() && report.set_aside.unwrap().exists());
    assert_eq!(report.recovered, ["one", "two"]);
    let containers = store.containers().unwrap();
    assert_eq!(containers.len(), 2);
    assert!(matches!(
        containers[0].status,
        ContainerStatus::Exited { code: None, .. }
    ));
    assert_eq!(store.images().unwrap(), [image(&diff_id)]);
}

#[test]
fn a_torn_snapshot_does_not_cost_the_index() {
    let (fixture, _) = filled();
    let (_dir, opened) = reopen(fixture, |root| {
        fs::write(root.join("index/snap.FFFFFFFFFFFFFFFF.generating"), b"torn").unwrap();
    });
    let (store, report) = opened.unwrap();
    assert_eq!(report, rcd_store::OpenReport::default());
    assert_eq!(
        store.containers().unwrap(),
        [container("one"), container("two")]
    );
}

#[test]
fn records_of_a_newer_schema_are_told_and_left_alone() {
    let (fixture, _) = filled();
    let newer = br#"{"schema":99,"record":{}}"#;
    let (dir, opened) = reopen(fixture, |root| {
        fs::write(root.join("containers/two/config.json"), newer).unwrap();
    });
    let error = opened.unwrap_err();
    assert!(
        matches!(error, Error::NewerSchema { found: 99, .. }),
        "{error:?}"
    );
    assert_eq!(
        fs::read(dir.path().join("data/containers/two/config.json")).unwrap(),
        newer
    );
}

#[test]
fn index_and_files_are_made_to_agree() {
    let (fixture, _) = filled();
    let (dir, opened) = reopen(fixture, |root| {
        fs::remove_dir_all(root.join("containers/one")).unwrap();
        fs::remove_file(root.join("containers/two/config.json")).unwrap();
        fs::create_dir_all(root.join("containers/half/upper")).unwrap();
        fs::create_dir_all(root.join("layers/.staging-7/x")).unwrap();
        for file in fs::read_dir(root.join("images")).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    });
    let (store, report) = opened.unwrap();
    assert_eq!(report.dropped, ["one".to_owned(), digest(b"image")]);
    assert_eq!(store.containers().unwrap(), [container("two")]);
    assert!(store.images().unwrap().is_empty());
    let root = dir.path().join("data");
    assert!(root.join("containers/two/config.json").exists());
    assert!(!root.join("containers/half").exists() && !root.join("layers/.staging-7").exists());
    store.empty_trash().unwrap();
    assert_eq!(fs::read_dir(root.join("trash")).unwrap().count(), 0);
}

#[test]
fn the_directory_is_private_and_locked() {
    let fixture = Fixture::new();
    let root = fixture.store.root().to_owned();
    assert_eq!(
        fs::metadata(&root).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let error = Store::open_with(&root, Ownership::Ignore).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error:?}");
    fs::write(root.join("file"), "").unwrap();
    let error = Store::open_with(&root.join("file"), Ownership::Ignore).unwrap_err();
    assert!(
        matches!(error, Error::NotADirectory { .. }),
        "{}",
        messages(&error)
    );
}

#[test]
fn layers_in_use_or_of_a_pull_under_way_are_not_collected() {
    let fixture = Fixture::new();
    let unpack = |data: &[u8]| {
        let layer = Archive::new().file("a", data).finish();
        fixture
            .store
            .unpack_layer(&layer[..], &LayerSource::default())
            .unwrap()
            .diff_id
    };
    let (named, fresh) = (unpack(b"named"), unpack(b"fresh"));
    fixture.store.put_image(&image(&named)).unwrap();
    assert!(
        fixture
            .store
            .collect_layers(std::slice::from_ref(&named))
            .unwrap()
            .removed
            .is_empty()
    );
    let collected = fixture.store.collect_layers(&[]).unwrap();
    assert_eq!(
        (collected.removed, collected.size_bytes),
        (vec![named.clone()], 5)
    );
    assert!(!fixture.store.has_layer(&named) && fixture.store.has_layer(&fresh));
}

#[test]
fn undescribed_directories_take_after_the_layer_below() {
    let fixture = Fixture::new();
    let unpack = |archive: Archive| {
        let layer = archive.finish();
        fixture
            .store
            .unpack_layer(&layer[..], &LayerSource::default())
            .unwrap()
            .diff_id
    };
    let lower = unpack(Archive::new().dir("tmp", 0o1777));
    let upper = unpack(Archive::new().file("tmp/file", b"x"));
    let mode = |layer: &str| {
        let path = fixture.store.layer_path(layer).join("tmp");
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(mode(&upper), 0o755);
    let mut image = image(&lower);
    image.diff_ids.push(upper.clone());
    fixture.store.put_image(&image).unwrap();
    assert_eq!(mode(&upper), 0o1777);
}

#[test]
fn blobs_are_verified_both_ways() {
    let fixture = Fixture::new();
    let digest = digest(b"blob");
    assert!(matches!(
        fixture.store.put_blob(&digest, b"other"),
        Err(Error::DigestMismatch { .. })
    ));
    fixture.store.put_blob(&digest, b"blob").unwrap();
    assert_eq!(fixture.store.blob(&digest).unwrap().unwrap(), b"blob");
    fs::write(
        fixture.store.root().join("blobs/sha256").join(&digest[7..]),
        "bad",
    )
    .unwrap();
    assert!(matches!(
        fixture.store.blob(&digest),
        Err(Error::DigestMismatch { .. })
    ));
    assert!(fixture.store.put_blob("sha256:../../x", b"blob").is_err());
}

#[test]
fn a_reference_that_two_images_claim_is_the_later_ones() {
    let (fixture, diff_id) = filled();
    let old = image(&diff_id);
    let mut new = old.clone();
    new.id = digest(b"another");
    new.references.truncate(1);
    let moved = new.references[0].clone();
    // File times have the grain of the kernel's clock tick.
    std::thread::sleep(std::time::Duration::from_millis(20));
    fixture.store.put_image(&new).unwrap();
    let (_dir, opened) = reopen(fixture, |_| {});
    for record in opened.unwrap().0.images().unwrap() {
        assert_eq!(record.references.contains(&moved), record.id == new.id);
    }
}
