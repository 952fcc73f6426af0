//! Small real images, made by an ordinary user from what the machine has.
//!
//! An image is an OCI layout in a folder of the cache, made once: busybox from Debian's static
//! busybox, and a Debian of three layers (the second has a whiteout, the third is zstd where the
//! machine has it) from packages that apt fetches and that are unpacked here, without root.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    command::check,
    environment::write,
    error::{Error, Result},
};

/// Changes when the content of made images does, so that old ones are not taken.
const VERSION: u32 = 3;

/// Packages of the Debian image; what they depend on comes along.
const DEBIAN_PACKAGES: [&str; 12] = [
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "findutils",
    "grep",
    "hostname",
    "libc-bin",
    "mawk",
    "ncurses-base",
    "procps",
    "sed",
];

/// Beginnings of names of packages that these depend on for their installation only, or as an
/// alternative to another one.
const DEBIAN_SKIPPED: [&str; 19] = [
    "debconf",
    "dpkg",
    "gawk",
    "init-system-helpers",
    "install-info",
    "libdb5",
    "libelogind",
    "libfile-",
    "libgdbm",
    "libmpfr",
    "libnumber-",
    "libperl",
    "libreadline",
    "libsigsegv",
    "libtext-",
    "original-awk",
    "perl",
    "readline",
    "usr",
];

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Compression of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `application/vnd.oci.image.layer.v1.tar`.
    None,
    /// `…tar+gzip`.
    Gzip,
    /// `…tar+zstd`.
    Zstd,
}

/// One layer: a directory whose files become root's.
#[derive(Debug)]
pub struct Layer<'a> {
    /// The directory.
    pub root: &'a Path,
    /// How the layer is compressed.
    pub compression: Compression,
}

/// The busybox image; made if the cache lacks it.
///
/// # Errors
/// When busybox-static is missing or a step fails.
pub fn busybox(cache: &Path) -> Result<PathBuf> {
    cached(cache, "busybox", |scratch, layout| {
        let root = busybox_root(scratch)?;
        let layers = [Layer {
            root: &root,
            compression: Compression::Gzip,
        }];
        let config = json!({"Cmd": ["sh"], "Env": [PATH], "Labels": {"made.by": "rcd"}});
        build(layout, &layers, &config)
    })
}

/// Tar of the busybox root file system, for `rc import` and for bundles of other runtimes.
///
/// # Errors
/// As [`busybox`].
pub fn busybox_tar(cache: &Path) -> Result<PathBuf> {
    let folder = cached(cache, "busybox-tar", |scratch, out| {
        let root = busybox_root(scratch)?;
        fs::create_dir_all(out).map_err(Error::io("make a folder"))?;
        tar(&root, &out.join("rootfs.tar"))
    })?;
    Ok(folder.join("rootfs.tar"))
}

/// The Debian image; made if the cache lacks it, for which apt must know a mirror.
///
/// # Errors
/// When packages cannot be fetched or a step fails.
pub fn debian(cache: &Path) -> Result<PathBuf> {
    cached(cache, "debian", |scratch, layout| {
        let base = scratch.join("base");
        unpack_packages(&scratch.join("deb"), &base)?;
        write(
            &base.join("etc/passwd"),
            &read(&base.join("usr/share/base-passwd/passwd.master"))?,
        )?;
        write(
            &base.join("etc/group"),
            &read(&base.join("usr/share/base-passwd/group.master"))?,
        )?;
        let trimmed = scratch.join("trimmed");
        write(&trimmed.join("usr/share/.wh.doc"), "")?;
        write(
            &trimmed.join("etc/motd"),
            "a Debian of packages, without root\n",
        )?;
        let user = scratch.join("user");
        let passwd = read(&base.join("etc/passwd"))?;
        let entry = "dev:x:1000:1000:a developer:/home/dev:/bin/bash\n";
        write(&user.join("etc/passwd"), &format!("{passwd}{entry}"))?;
        write(
            &user.join("etc/profile.d/prompt.sh"),
            "PS1='\\u@\\h:\\w\\$ '\n",
        )?;
        let zstd = match has_program("zstd") {
            true => Compression::Zstd,
            false => Compression::Gzip,
        };
        let layers = [
            Layer {
                root: &base,
                compression: Compression::Gzip,
            },
            Layer {
                root: &trimmed,
                compression: Compression::Gzip,
            },
            Layer {
                root: &user,
                compression: zstd,
            },
        ];
        build(layout, &layers, &json!({"Cmd": ["bash"], "Env": [PATH]}))
    })
}

/// Makes `<cache>/<name>` once: `make` gets a scratch folder and the folder to fill.
///
/// # Errors
/// With what `make` fails with.
pub fn cached(
    cache: &Path,
    name: &str,
    make: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let target = cache.join(format!("{name}-v{VERSION}"));
    if target.exists() {
        return Ok(target);
    }
    fs::create_dir_all(cache).map_err(Error::io(format!("make {}", cache.display())))?;
    let scratch = tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(cache)
        .map_err(Error::io("make a scratch folder"))?;
    let fresh = scratch.path().join("result");
    make(scratch.path(), &fresh)?;
    // Whoever comes second finds the first one's: they are alike.
    if fs::rename(&fresh, &target).is_err() && !target.exists() {
        return Err(Error::Missing(format!(
            "cannot put {} in its place",
            target.display()
        )));
    }
    Ok(target)
}

fn busybox_root(scratch: &Path) -> Result<PathBuf> {
    let root = scratch.join("root");
    let busybox = ["/bin/busybox", "/usr/bin/busybox"];
    let source = busybox.iter().find(|path| Path::new(path).exists());
    let source = source.ok_or_else(|| Error::Missing("busybox-static is not installed".into()))?;
    for folder in [
        "bin", "dev", "etc", "home/app", "proc", "root", "sys", "usr/bin", "var",
    ] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
    }
    let tmp = root.join("tmp");
    fs::create_dir(&tmp)
        .and_then(|()| fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)))
        .map_err(Error::io("make /tmp"))?;
    let program = root.join("bin/busybox");
    fs::copy(source, &program).map_err(Error::io("copy busybox"))?;
    for applet in check(Command::new(source).arg("--list"))?.lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet)).map_err(Error::io("link"))?;
        }
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n";
    write(&root.join("etc/passwd"), passwd)?;
    write(
        &root.join("etc/group"),
        "root:x:0:\napp:x:1001:\nextra:x:1002:app\n",
    )?;
    write(&root.join("etc/not-a-program"), "text\n")?;
    write(&root.join("etc/profile"), "PS1='# '\n")?;
    Ok(root)
}

fn unpack_packages(download: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(download).map_err(Error::io("make a download folder"))?;
    for merged in ["bin", "sbin", "lib", "lib64"] {
        let folder = root.join("usr").join(merged);
        fs::create_dir_all(&folder)
            .and_then(|()| symlink(format!("usr/{merged}"), root.join(merged)))
            .map_err(Error::io(format!("make {}", folder.display())))?;
    }
    let mut depends = Command::new("apt-cache");
    depends
        .args(["depends", "--recurse", "--important"])
        .args(DEBIAN_PACKAGES);
    let listing = check(&mut depends)?;
    let names = listing
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_alphanumeric()));
    let mut names: Vec<&str> = names
        .filter(|name| !DEBIAN_SKIPPED.iter().any(|skip| name.starts_with(skip)))
        .collect();
    names.sort_unstable();
    names.dedup();
    let mut fetch = Command::new("apt-get");
    check(
        fetch
            .current_dir(download)
            .args(["download", "-q"])
            .args(&names),
    )?;
    let unpack = "for deb in *.deb; do dpkg-deb --fsys-tarfile \"$deb\" \
                  | tar -x --no-same-owner --keep-directory-symlink -C \"$0\" || exit 1; done";
    check(
        Command::new("sh")
            .arg("-c")
            .arg(unpack)
            .arg(root)
            .current_dir(download),
    )
    .map(drop)
}

/// Packs a directory; all files become root's, times and order are fixed.
///
/// # Errors
/// When tar fails.
pub fn tar(root: &Path, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args([
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--sort=name",
        "--mtime=@1700000000",
    ])
    .args(["--format=gnu", "-C"])
    .arg(root)
    .arg("-cf")
    .arg(to)
    .arg(".");
    check(&mut tar).map(drop)
}

/// Writes an OCI layout with one image, tagged `latest`.
///
/// # Errors
/// When a tool fails.
pub fn build(layout: &Path, layers: &[Layer<'_>], config: &Value) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(Error::io(format!("make {}", blobs.display())))?;
    let mut diff_ids = Vec::new();
    let mut descriptors = Vec::new();
    for layer in layers {
        let (diff_id, descriptor) = add_layer(&blobs, layer)?;
        diff_ids.push(diff_id);
        descriptors.push(descriptor);
    }
    let created = "2023-11-14T22:13:20Z";
    let history: Vec<Value> = layers
        .iter()
        .map(|_| json!({"created": created, "created_by": "rcd"}))
        .collect();
    let config = json!({
        "created": created,
        "architecture": architecture(),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    });
    let config_type = "application/vnd.oci.image.config.v1+json";
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": add_json(&blobs, config_type, &config)?,
        "layers": descriptors,
    });
    let mut entry = add_json(&blobs, manifest_type, &manifest)?;
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    write(&layout.join("index.json"), &index.to_string())?;
    write(
        &layout.join("oci-layout"),
        "{\"imageLayoutVersion\":\"1.0.0\"}",
    )
}

fn add_layer(blobs: &Path, layer: &Layer<'_>) -> Result<(String, Value)> {
    let plain = blobs.join("layer.tar");
    tar(layer.root, &plain)?;
    let diff_id = format!("sha256:{}", sha256(&plain)?);
    let (suffix, packed) = match layer.compression {
        Compression::None => ("", plain),
        Compression::Gzip => {
            check(Command::new("gzip").args(["-nf1"]).arg(&plain))?;
            ("+gzip", blobs.join("layer.tar.gz"))
        }
        Compression::Zstd => {
            check(Command::new("zstd").args(["-q", "--rm", "-f"]).arg(&plain))?;
            ("+zstd", blobs.join("layer.tar.zst"))
        }
    };
    let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
    Ok((diff_id, add_file(blobs, &media_type, &packed)?))
}

fn add_json(blobs: &Path, media_type: &str, value: &Value) -> Result<Value> {
    let file = blobs.join("fresh.json");
    write(&file, &value.to_string())?;
    add_file(blobs, media_type, &file)
}

fn add_file(blobs: &Path, media_type: &str, file: &Path) -> Result<Value> {
    let digest = sha256(file)?;
    let size = fs::metadata(file)
        .map_err(Error::io("look at a blob"))?
        .len();
    fs::rename(file, blobs.join(&digest)).map_err(Error::io("put a blob in its place"))?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size}))
}

fn sha256(file: &Path) -> Result<String> {
    let line = check(Command::new("sha256sum").arg(file))?;
    Ok(line
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))
}

/// This machine's architecture as images name it.
#[must_use]
pub fn architecture() -> &'static str {
    let names = BTreeMap::from([("x86_64", "amd64"), ("aarch64", "arm64")]);
    names
        .get(std::env::consts::ARCH)
        .copied()
        .unwrap_or(std::env::consts::ARCH)
}

/// Whether a program is in the search path or among the administrator's.
#[must_use]
pub fn has_program(name: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':')
        .any(|folder| crate::environment::is_executable(&Path::new(folder).join(name)))
}
