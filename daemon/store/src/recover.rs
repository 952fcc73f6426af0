//! What is put right when the store is opened: index and files are made to agree.
//!
//! | found | cause | done |
//! |---|---|---|
//! | index that cannot be opened | damage | set aside, rows made from files |
//! | container row, no directory | killed within a removal, or a relaxed one | row removed |
//! | directory with `config.json`, no row | a relaxed row was lost, or the index | row made |
//! | directory, neither row nor `config.json` | killed within a creation | to the trash |
//! | row, no `config.json` | killed within a creation | file made |
//! | image file and row that differ | killed within a change | row made from the file |
//! | image row, no file | killed within a removal | row removed |
//! | reference of two images | killed while it moved | the image recorded last has it |
//!
//! A record of a newer schema stops all this before anything is changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::disk::{self, Sync};
use crate::error::{Error, Result, io_error};
use crate::index::{Durability, Index, SledIndex, Table, is_damage};
use crate::record::{ContainerRecord, ContainerStatus, ImageRecord};
use crate::root::Root;
use crate::{container, envelope, image, trash};

/// What was found and put right at open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Why the index was built again from files, if it was.
    pub rebuilt: Option<String>,
    /// Where the damaged index was put.
    pub set_aside: Option<PathBuf>,
    /// Containers whose row was made from `config.json`: exited with an unknown code, unless they
    /// are found running.
    pub recovered: Vec<String>,
    /// Rows that had nothing behind them any more.
    pub dropped: Vec<String>,
    /// Files and rows that could not be decoded and were left as they are.
    pub unreadable: Vec<String>,
}

/// Opens the index, setting a damaged one aside.
pub(crate) fn open_index(root: &Root, report: &mut OpenReport) -> Result<SledIndex> {
    let path = root.folder("index");
    let error = match SledIndex::open(&path) {
        Err(error) if is_damage(&error) => error,
        result => return result,
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let aside = root.folder(&format!("index.damaged-{}", now.as_nanos()));
    fs::rename(&path, &aside).map_err(io_error("set aside", &path))?;
    disk::sync_dir(root.path())?;
    report.rebuilt = Some(chain(&error));
    report.set_aside = Some(aside);
    SledIndex::open(&path)
}

/// Makes index and files agree.
pub(crate) fn reconcile(root: &Root, index: &dyn Index, report: &mut OpenReport) -> Result<()> {
    // Both are read whole before the first change.
    let containers = read_rows::<ContainerRecord>(index, Table::Containers, report)?;
    let images = read_rows::<ImageRecord>(index, Table::Images, report)?;
    let (configs, mut files) = (read_configs(root, report)?, read_images(root, report)?);
    settle_references(root, &mut files)?;
    reconcile_containers(root, index, containers, configs, report)?;
    reconcile_images(root, index, images, files, report)?;
    index.sync()
}

type Rows<T> = BTreeMap<String, Option<T>>;

/// Rows by key; none for one that is damaged.
fn read_rows<T: serde::de::DeserializeOwned>(
    index: &dyn Index,
    table: Table,
    report: &mut OpenReport,
) -> Result<Rows<T>> {
    let mut rows = BTreeMap::new();
    for (key, row) in index.rows(table)? {
        let record = readable(
            envelope::decode(&row, &format!("row {key} of the index")),
            report,
        )?;
        rows.insert(key, record);
    }
    Ok(rows)
}

/// Takes a damaged record for none, and says so.
fn readable<T>(record: Result<T>, report: &mut OpenReport) -> Result<Option<T>> {
    match record {
        Err(Error::Damaged { what, source }) => {
            report.unreadable.push(format!("{what}: {source}"));
            Ok(None)
        }
        record => record.map(Some),
    }
}

/// A container directory.
enum Config {
    Whole(Box<ContainerRecord>),
    Missing,
    Damaged,
}

fn read_configs(root: &Root, report: &mut OpenReport) -> Result<BTreeMap<String, Config>> {
    let mut configs = BTreeMap::new();
    for id in disk::names(&root.folder(container::FOLDER))? {
        // What is no container's is none of ours to touch.
        let path = root.folder(container::FOLDER).join(&id);
        if container::check_id(&id).is_err() || !path.is_dir() {
            continue;
        }
        let config = match readable(container::read_config(root, &id), report)? {
            Some(Some(record)) if record.id == id => Config::Whole(Box::new(record)),
            Some(None) => Config::Missing,
            Some(Some(_)) | None => Config::Damaged,
        };
        configs.insert(id, config);
    }
    Ok(configs)
}

fn read_images(root: &Root, report: &mut OpenReport) -> Result<Rows<ImageRecord>> {
    let mut files = BTreeMap::new();
    for id in image::ids(root)? {
        let record = readable(image::read(root, &id), report)?.flatten();
        files.insert(id.clone(), record.filter(|record| record.id == id));
    }
    Ok(files)
}

fn reconcile_containers(
    root: &Root,
    index: &dyn Index,
    rows: Rows<ContainerRecord>,
    configs: BTreeMap<String, Config>,
    report: &mut OpenReport,
) -> Result<()> {
    for (id, row) in &rows {
        match (row, configs.get(id)) {
            (_, None) => {
                index.remove(Table::Containers, id, Durability::Relaxed)?;
                report.dropped.push(id.clone());
            }
            (Some(record), Some(Config::Missing)) => {
                container::write_config(root, record, Sync::Yes)?
            }
            (Some(record), Some(Config::Damaged)) => {
                disk::remove_file(&root.folder(container::FOLDER).join(id).join("config.json"))?;
                container::write_config(root, record, Sync::Yes)?;
            }
            _ => {}
        }
    }
    for (id, config) in configs {
        let known = matches!(rows.get(&id), Some(Some(_)));
        match config {
            Config::Whole(record) if !known => {
                let record = ended(*record);
                let row = envelope::encode(&record, &format!("container {id}"))?;
                index.put(Table::Containers, &id, &row, Durability::Relaxed)?;
                report.recovered.push(id);
            }
            Config::Missing if !known => {
                index.remove(Table::Containers, &id, Durability::Relaxed)?;
                trash::throw(root, container::FOLDER, &id)?;
            }
            // Without a row and with a damaged file nothing is known of it, but its files may matter
            // to somebody: it stays, and is told.
            _ => {}
        }
    }
    Ok(())
}

/// A container of which only the creation is known.
fn ended(record: ContainerRecord) -> ContainerRecord {
    let status = ContainerStatus::Exited {
        started_at_ns: 0,
        finished_at_ns: record.created_at_ns,
        code: None,
        error: None,
    };
    ContainerRecord { status, ..record }
}

/// Leaves each reference to the one image whose file was written last: a reference moves by being
/// given to the new image first.
fn settle_references(root: &Root, files: &mut Rows<ImageRecord>) -> Result<()> {
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, file) in files.iter() {
        for reference in file.iter().flat_map(|file| &file.references) {
            owners
                .entry(reference.clone())
                .or_default()
                .push(id.clone());
        }
    }
    for (reference, ids) in owners.into_iter().filter(|(_, ids)| ids.len() > 1) {
        let mut dated = Vec::new();
        for id in ids {
            dated.push((image::modified(root, &id)?, id));
        }
        dated.sort();
        dated.pop();
        for (_, loser) in dated {
            let Some(Some(file)) = files.get_mut(&loser) else {
                continue;
            };
            file.references.retain(|other| *other != reference);
            image::write(root, file)?;
        }
    }
    Ok(())
}

fn reconcile_images(
    root: &Root,
    index: &dyn Index,
    rows: Rows<ImageRecord>,
    files: Rows<ImageRecord>,
    report: &mut OpenReport,
) -> Result<()> {
    for id in rows.keys().filter(|id| !files.contains_key(*id)) {
        index.remove(Table::Images, id, Durability::Relaxed)?;
        report.dropped.push(id.clone());
    }
    for (id, file) in files {
        let row = rows.get(&id).and_then(Option::as_ref);
        match (file, row) {
            (Some(file), row) if row != Some(&file) => {
                let bytes = envelope::encode(&file, &format!("image {id}"))?;
                index.put(Table::Images, &id, &bytes, Durability::Relaxed)?;
            }
            (None, Some(row)) => drop(image::write(root, row)?),
            (None, None) => index.remove(Table::Images, &id, Durability::Relaxed)?,
            _ => {}
        }
    }
    Ok(())
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
