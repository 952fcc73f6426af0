//! `containers/<id>/`: the directories of one container, and `config.json`, its record as created.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rcd_sys::failpoint;

use crate::disk::{self, Sync};
use crate::envelope;
use crate::error::{Error, Result, io_error};
use crate::record::ContainerRecord;
use crate::root::Root;

/// Folder of all containers.
pub(crate) const FOLDER: &str = "containers";

/// Longest id, in bytes. rcd's own have 64.
const ID_LEN_MAX: usize = 128;

/// The paths of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerDirs {
    /// `containers/<id>`.
    pub root: PathBuf,
    /// Upper directory of its overlay.
    pub upper: PathBuf,
    /// Work directory of its overlay.
    pub work: PathBuf,
    /// Directory of its log.
    pub log: PathBuf,
    /// Its `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Its `/etc/hostname`.
    pub hostname: PathBuf,
    /// Its `/etc/hosts`.
    pub hosts: PathBuf,
}

impl ContainerDirs {
    pub(crate) fn new(root: PathBuf) -> Self {
        let files = root.join("files");
        Self {
            upper: root.join("upper"),
            work: root.join("work"),
            log: root.join("log"),
            resolv_conf: files.join("resolv.conf"),
            hostname: files.join("hostname"),
            hosts: files.join("hosts"),
            root,
        }
    }
}

/// Checks that an id is a plain name.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=ID_LEN_MAX).contains(&id.len()) && id.bytes().all(plain) {
        Ok(())
    } else {
        Err(Error::InvalidId { id: id.to_owned() })
    }
}

/// Makes a container's directories, all at once. The root that its users see is like `top`, the root
/// of its topmost layer.
pub(crate) fn create_dirs(root: &Root, id: &str, top: Option<&Path>) -> Result<ContainerDirs> {
    check_id(id)?;
    let containers = root.folder(FOLDER);
    let name = disk::staging_name();
    let staging = containers.join(&name);
    let path = containers.join(id);
    let made = make_dirs(&staging, top).and_then(|()| {
        failpoint::reach("container.staged");
        fs::rename(&staging, &path).map_err(io_error("create", &path))
    });
    if let Err(error) = made {
        crate::tree::remove(&containers, &name)?;
        return Err(error);
    }
    Ok(ContainerDirs::new(path))
}

fn make_dirs(staging: &Path, top: Option<&Path>) -> Result<()> {
    let make = |path: &Path| {
        DirBuilder::new()
            .mode(0o700)
            .create(path)
            .map_err(io_error("create", path))
    };
    make(staging)?;
    for name in ["upper", "work", "log", "files"] {
        make(&staging.join(name))?;
    }
    // The root directory that every user in the container sees: of merged directories, overlay
    // shows the upper one's attributes.
    let upper = staging.join("upper");
    let like = top.map(|top| fs::metadata(top).map_err(io_error("look at", top)));
    let (mode, uid, gid) = match like.transpose()? {
        Some(like) => (like.mode() & 0o7777, like.uid(), like.gid()),
        None => (0o755, 0, 0),
    };
    if (uid, gid) != (0, 0) {
        chown(&upper, Some(uid), Some(gid)).map_err(io_error("set the owner of", &upper))?;
    }
    fs::set_permissions(&upper, fs::Permissions::from_mode(mode))
        .map_err(io_error("set the mode of", &upper))
}

/// Makes the container's own directory unless it is there.
pub(crate) fn ensure_dir(root: &Root, id: &str) -> Result<PathBuf> {
    let path = root.folder(FOLDER).join(id);
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&path)
        .map_err(io_error("create", &path))?;
    Ok(path)
}

/// Writes `config.json` unless it is there.
pub(crate) fn write_config(root: &Root, record: &ContainerRecord, sync: Sync) -> Result<()> {
    let path = root.folder(FOLDER).join(&record.id);
    if path.join("config.json").exists() {
        return Ok(());
    }
    let path = ensure_dir(root, &record.id)?;
    let bytes = envelope::encode(record, &format!("container {}", record.id))?;
    // Staged where an open looks for what was not finished.
    disk::write_file_by_way_of(&root.folder(FOLDER), &path, "config.json", &bytes, sync)?;
    if sync == Sync::Yes {
        disk::sync_dir(&root.folder(FOLDER))
    } else {
        Ok(())
    }
}

/// Reads `config.json`; none if there is none.
pub(crate) fn read_config(root: &Root, id: &str) -> Result<Option<ContainerRecord>> {
    let path = root.folder(FOLDER).join(id).join("config.json");
    let what = path.display().to_string();
    disk::read_file(&path)?
        .map(|bytes| envelope::decode(&bytes, &what))
        .transpose()
}
