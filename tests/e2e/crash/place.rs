//! A daemon that can be armed to die, and what must hold whenever it has come to rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rcd_tests::{
    Daemon, Environment, Error, Registry, Result, Service,
    command::until,
    harness::Verdict,
    image::{self, Compression, Layer},
};
use serde_json::{Value, json};

use crate::support::add_busybox;

/// How long clean-up in the background may take, with a retried removal of a cgroup in it.
const SETTLE_S: u64 = 15;

/// Layers of the image in the registry.
const LAYERS: usize = 3;

pub(super) struct Place {
    pub(super) rcd: Service,
    /// Two references to one image; empty without a registry.
    pub(super) references: [String; 2],
    /// How many layers it has.
    pub(super) image_layers: usize,
    tar: PathBuf,
    kill_at: PathBuf,
    mounts: usize,
    helpers: usize,
    _registry: Option<Registry>,
}

impl Place {
    pub(super) fn new(environment: &Environment, with_registry: bool) -> Result<Place> {
        let mut sandbox = environment.sandbox("c")?;
        let kill_at = sandbox.home.join("kill-at");
        let text = kill_at.to_string_lossy().into_owned();
        sandbox.extra.insert("RCD_KILL_AT".into(), text);
        let rcd = Service::start_in(sandbox)?;
        add_busybox(environment, &rcd)?;
        let registry = with_registry
            .then(|| Registry::start(environment))
            .transpose()?;
        let references = match &registry {
            Some(registry) => {
                let layout = layered(environment)?;
                [
                    registry.push(&layout, "crash:1")?,
                    registry.push(&layout, "crash:2")?,
                ]
            }
            None => Default::default(),
        };
        let mut place = Place {
            rcd,
            references,
            image_layers: LAYERS,
            tar: other_tar(environment)?,
            kill_at,
            mounts: 0,
            helpers: 0,
            _registry: registry,
        };
        place.rebase()?;
        Ok(place)
    }

    /// A command with its place holders filled in.
    pub(super) fn words<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        let fill = |word: &&'a str| match *word {
            "@1" => &*self.references[0],
            "@2" => &*self.references[1],
            "@tar" => self.tar.to_str().unwrap_or_default(),
            word => word,
        };
        command.iter().map(fill).collect()
    }

    /// Makes the daemon kill itself when it next reaches a step.
    pub(super) fn arm(&self, step: &str) -> Result<()> {
        let fresh = self.kill_at.with_extension("new");
        fs::write(&fresh, step)
            .and_then(|()| fs::rename(&fresh, &self.kill_at))
            .map_err(Error::io("arm the daemon"))
    }

    pub(super) fn holder(&self) -> Result<i32> {
        let info = self.rcd.rc_ok(&["info", "--format", "json"])?;
        let info: Value = serde_json::from_str(&info).unwrap_or_default();
        let pid = info["holderPid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        pid.ok_or_else(|| Error::Missing("rc info does not tell the holder's pid".into()))
    }

    /// Takes the present holder's mounts and processes for those that it has without containers.
    pub(super) fn rebase(&mut self) -> Result<()> {
        let holder = self.holder()?;
        (self.mounts, self.helpers) = (mounts(holder), children(holder).len());
        Ok(())
    }

    /// Layers by name, with the inodes of their directories.
    pub(super) fn layers(&self) -> BTreeMap<String, u64> {
        let entries = fs::read_dir(self.rcd.sandbox().data().join("layers"));
        let entries = entries.into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.path().is_dir());
        let named = directories.filter_map(|entry| {
            Some((
                entry.file_name().into_string().ok()?,
                entry.metadata().ok()?.ino(),
            ))
        });
        named.collect()
    }

    /// Removes every container, and every image but busybox.
    pub(super) fn clear(&self) -> Verdict {
        for id in self.rcd.rc_ok(&["ps", "-aq", "--no-trunc"])?.lines() {
            self.rcd.rc_ok(&["rm", "-f", id])?;
        }
        let format = "{{.ID}} {{.Repository}}";
        let images = self
            .rcd
            .rc_ok(&["images", "--no-trunc", "--format", format])?;
        for line in images.lines().filter(|line| !line.ends_with("busybox")) {
            let id = line.split(' ').next().unwrap_or_default();
            self.rcd.rc(&["rmi", "-f", id]);
        }
        Ok(())
    }

    /// Fails unless, within a while, files, processes, cgroups and mounts are those of the
    /// containers that are listed.
    pub(super) fn settle(&self) -> Verdict {
        let mut problem = String::new();
        let settled = until(SETTLE_S, "peace", || {
            match self.problem() {
                Ok(None) => return Some(()),
                Ok(Some(found)) => problem = found,
                Err(error) => problem = error.chain(),
            }
            None
        });
        settled.map_err(|_| Error::Missing(format!("left behind: {problem}")))
    }

    fn problem(&self) -> Result<Option<String>> {
        let listed = ids(&self.rcd.rc_ok(&["ps", "-aq", "--no-trunc"])?);
        let running = ids(&self.rcd.rc_ok(&["ps", "-q", "--no-trunc"])?);
        let data = self.rcd.sandbox().data();
        let directories = names(&data.join("containers"));
        if directories != listed {
            return Ok(Some(format!(
                "listed {listed:?}, directories {directories:?}"
            )));
        }
        let thrown = names(&data.join("trash"));
        if !thrown.is_empty() {
            return Ok(Some(format!("in the trash: {thrown:?}")));
        }
        for folder in ["layers", "images", "blobs/sha256"] {
            let found = names(&data.join(folder));
            if let Some(name) = found.iter().find(|name| name.starts_with('.')) {
                return Ok(Some(format!("{folder}/{name}")));
            }
        }
        let holder = self.holder()?;
        let children = children(holder);
        if children.len() != running.len() + self.helpers {
            return Ok(Some(format!("running {running:?}, processes {children:?}")));
        }
        if mounts(holder) != self.mounts {
            return Ok(Some("mounts of the holder".to_owned()));
        }
        let cgroups = self.rcd.sandbox().cgroup.as_deref().map(cgroups);
        Ok(cgroups
            .filter(|cgroups| *cgroups != running)
            .map(|cgroups| format!("running {running:?}, cgroups {cgroups:?}")))
    }
}

fn ids(lines: &str) -> BTreeSet<String> {
    lines.lines().map(str::to_owned).collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Processes whose parent is `pid`, those excepted that have ended and wait to be reaped.
fn children(pid: i32) -> Vec<String> {
    let mut found = Vec::new();
    for name in names(Path::new("/proc")) {
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).unwrap_or_default();
        // After the program's name in parentheses: state, parent.
        let Some((before, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        let mut fields = rest.split(' ');
        let (state, parent) = (fields.next(), fields.next());
        if state != Some("Z") && parent == Some(&pid.to_string()) {
            found.push(before.to_owned());
        }
    }
    found
}

fn mounts(pid: i32) -> usize {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    text.lines().count()
}

/// Names of the cgroups below one that are containers'.
fn cgroups(below: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in names(below) {
        let path = below.join(&name);
        if !path.is_dir() {
            continue;
        }
        if name.len() == 64 {
            found.insert(name);
        } else {
            found.extend(cgroups(&path));
        }
    }
    found
}

/// An image of busybox and two layers that tell nothing.
fn layered(environment: &Environment) -> Result<PathBuf> {
    let tar = image::busybox_tar(&environment.cache)?;
    image::cached(&environment.cache, "crash", |scratch, layout| {
        let roots = ["a", "b", "c"].map(|name| scratch.join(name));
        for (number, root) in roots.iter().enumerate() {
            fs::create_dir_all(root.join("etc")).map_err(Error::io("make a folder"))?;
            let file = root.join(format!("etc/layer{number}"));
            fs::write(file, number.to_string()).map_err(Error::io("write a file"))?;
        }
        let mut unpack = std::process::Command::new("tar");
        unpack.arg("-xf").arg(&tar).arg("-C").arg(&roots[0]);
        rcd_tests::command::check(&mut unpack)?;
        let layers = roots.each_ref().map(|root| Layer {
            root,
            compression: Compression::Gzip,
        });
        image::build(layout, &layers, &json!({"Cmd": ["sh"]}))
    })
}

/// Another archive of busybox: one that shares no layer with the image of that name.
fn other_tar(environment: &Environment) -> Result<PathBuf> {
    let tar = image::busybox_tar(&environment.cache)?;
    let folder = image::cached(&environment.cache, "crash-tar", |scratch, out| {
        let root = scratch.join("root");
        fs::create_dir_all(&root)
            .and_then(|()| fs::create_dir_all(out))
            .map_err(Error::io("make a folder"))?;
        let mut unpack = std::process::Command::new("tar");
        unpack.arg("-xf").arg(&tar).arg("-C").arg(&root);
        rcd_tests::command::check(&mut unpack)?;
        fs::write(root.join("etc/other"), "").map_err(Error::io("write a file"))?;
        image::tar(&root, &out.join("rootfs.tar"))
    })?;
    Ok(folder.join("rootfs.tar"))
}
