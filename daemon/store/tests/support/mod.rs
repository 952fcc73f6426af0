//! Archives made by hand, and a store in a temporary directory beside something to protect.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rcd_store::{Ownership, Store};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Modification time of every entry, in seconds.
pub(crate) const TIME: i64 = 1_234_567_890;

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// An error with its causes.
pub(crate) fn messages(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(messages);
    format!("{error}: {}", cause.unwrap_or_default())
}

pub(crate) fn xattr(path: &Path, name: &CStr) -> Option<Vec<u8>> {
    rcd_sys::xattr::get_xattr(File::open(path).unwrap().as_fd(), name).unwrap()
}

/// A store, and a directory beside it that no archive may touch.
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) sentinel: PathBuf,
    pub(crate) store: Store,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sentinel = dir.path().join("data/layers/sentinel");
        // Where `../sentinel` from a layer would lead.
        fs::create_dir_all(&sentinel).unwrap();
        fs::write(sentinel.join("file"), "untouched").unwrap();
        let (store, _) = Store::open_with(&dir.path().join("data"), Ownership::Ignore).unwrap();
        Self {
            dir,
            sentinel,
            store,
        }
    }

    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        fs::read_dir(self.store.root().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "sentinel")
            .collect()
    }

    pub(crate) fn check_sentinel(&self) {
        assert_eq!(fs::read(self.sentinel.join("file")).unwrap(), b"untouched");
        assert_eq!(fs::read_dir(&self.sentinel).unwrap().count(), 1);
    }

    pub(crate) fn check_nothing_left(&self) {
        self.check_sentinel();
        assert_eq!(self.names("layers"), Vec::<String>::new());
        assert_eq!(self.names("trash"), Vec::<String>::new());
    }
}

/// An archive whose names nobody cleans.
pub(crate) struct Archive(Builder<Vec<u8>>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn add(mut self, name: &str, link: &str, mut header: Header, data: &[u8]) -> Self {
        for (text, kind) in [
            (name, EntryType::GNULongName),
            (link, EntryType::GNULongLink),
        ] {
            if text.len() > 100 {
                let mut long = header_of(kind, text.len() as u64 + 1);
                long.set_cksum();
                self.0
                    .append(&long, [text.as_bytes(), b"\0"].concat().as_slice())
                    .unwrap();
            }
        }
        let old = header.as_old_mut();
        for (field, text) in [(&mut old.name, name), (&mut old.linkname, link)] {
            let len = text.len().min(100);
            field[..len].copy_from_slice(&text.as_bytes()[..len]);
        }
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.add(
            name,
            "",
            header_of(EntryType::Regular, data.len() as u64),
            data,
        )
    }

    pub(crate) fn mode_file(self, name: &str, mode: u32) -> Self {
        let mut header = header_of(EntryType::Regular, 0);
        header.set_mode(mode);
        self.add(name, "", header, b"")
    }

    pub(crate) fn owned(self, name: &str, uid: u64, gid: u64) -> Self {
        let mut header = header_of(EntryType::Regular, 0);
        header.set_uid(uid);
        header.set_gid(gid);
        self.add(name, "", header, b"")
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        let mut header = header_of(EntryType::Directory, 0);
        header.set_mode(mode);
        self.add(name, "", header, b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.add(name, target, header_of(EntryType::Symlink, 0), b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.add(name, target, header_of(EntryType::Link, 0), b"")
    }

    pub(crate) fn special(self, name: &str, kind: EntryType) -> Self {
        let mut header = header_of(kind, 0);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        self.add(name, "", header, b"")
    }

    /// A file with pax records.
    pub(crate) fn pax_file(mut self, name: &str, records: &[(&str, &[u8])]) -> Self {
        self.0
            .append_pax_extensions(records.iter().copied())
            .unwrap();
        self.file(name, b"data")
    }

    /// A header that claims `size` bytes and has none.
    pub(crate) fn claim(mut self, kind: EntryType, size: u64) -> Self {
        let mut header = header_of(kind, size);
        header.set_cksum();
        self.0.get_mut().extend_from_slice(header.as_bytes());
        self
    }
}

fn header_of(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(TIME.cast_unsigned());
    header
}

/// An image of one layer.
pub(crate) fn image(diff_id: &str) -> rcd_store::ImageRecord {
    rcd_store::ImageRecord {
        id: digest(b"image"),
        manifest_digest: digest(b"manifest"),
        references: vec!["docker.io/library/debian:12".to_owned()],
        created_at_ns: 0,
        size_bytes: 0,
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        author: None,
        diff_ids: vec![diff_id.to_owned()],
        entrypoint: Vec::new(),
        command: Vec::new(),
        env: Vec::new(),
        working_dir: String::new(),
        user: String::new(),
        labels: std::collections::BTreeMap::new(),
        exposed_ports: Vec::new(),
        volumes: Vec::new(),
        stop_signal: None,
    }
}

/// A container that was created.
pub(crate) fn container(id: &str) -> rcd_store::ContainerRecord {
    rcd_store::ContainerRecord {
        id: id.to_owned(),
        name: format!("name-{id}"),
        created_at_ns: 5,
        image: "debian".to_owned(),
        image_id: digest(b"image"),
        layers: Vec::new(),
        config: rcd_store::ContainerConfig::default(),
        status: rcd_store::ContainerStatus::Created,
    }
}
