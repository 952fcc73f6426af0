//! The client against Debian's docker-registry, filled by skopeo.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use sha2::Digest;

use super::server::{manifest, sha};
use crate::registry::digest_text;
use crate::{Compression, Config, Reference, Registry};

/// How long the registry may take to listen.
const LISTEN_SECONDS_MAX: u64 = 20;

/// A registry that ends with the test.
struct RealRegistry {
    child: Child,
    address: String,
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn have(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn start(directory: &Path) -> RealRegistry {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let config = directory.join("registry.yml");
    let root = directory.join("registry");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
         http: {{addr: \"{address}\"}}\n",
        root.display(),
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while TcpStream::connect(&address).is_err() {
        assert!(
            started.elapsed() < Duration::from_secs(LISTEN_SECONDS_MAX),
            "it does not listen"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    RealRegistry { child, address }
}

/// An OCI layout of one image with one plain layer of so many blocks; returns its diff id.
fn layout(directory: &Path, blocks: usize) -> String {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let name = sha(bytes).replace("sha256:", "");
        std::fs::File::create(blobs.join(name))
            .unwrap()
            .write_all(bytes)
            .unwrap();
    };
    // A tar of nothing is two blocks of zeros; more of them give the compressors something to do.
    let tar = vec![0; 512 * blocks];
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        sha(&tar),
    );
    let manifest = manifest(&config, &[(&tar, None)]).replace("tar+gzip", "tar");
    put(&tar);
    put(config.as_bytes());
    put(manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "digest":"{}","size":{},"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
        sha(manifest.as_bytes()),
        manifest.len(),
    );
    std::fs::write(directory.join("index.json"), index).unwrap();
    std::fs::write(
        directory.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    sha(&tar)
}

fn copy(layout: &Path, target: &str, options: &[&str]) {
    let status = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"])
        .args(options)
        .arg(format!("oci:{}", layout.display()))
        .arg(format!("docker://{target}"))
        .status()
        .unwrap();
    assert!(status.success(), "skopeo copy {options:?}");
}

#[tokio::test]
async fn a_real_registry_serves_all_forms() {
    if !have("docker-registry") || !have("skopeo") {
        println!("skipped: docker-registry or skopeo is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let registry = start(directory.path());
    let client = Registry::new(Config {
        auth_files: Vec::new(),
        ..Config::default()
    });
    let forms: &[(&str, &[&str], Compression)] = &[
        ("gzip", &["--dest-compress-format=gzip"], Compression::Gzip),
        (
            "zstd",
            &["--format=oci", "--dest-compress-format=zstd"],
            Compression::Zstd,
        ),
        ("docker", &["--format=v2s2"], Compression::Gzip),
        ("index", &["--all"], Compression::Gzip),
    ];
    for (index, (tag, options, compression)) in forms.iter().enumerate() {
        // Other bytes for each: skopeo reuses what it has compressed before.
        let source = directory.path().join(tag);
        let diff_id = layout(&source, 2000 + index);
        let target = format!("{}/team/app:{tag}", registry.address);
        copy(&source, &target, options);
        let reference: Reference = target.parse().unwrap();
        let platform = "linux/amd64".parse().unwrap();
        let resolved = client.resolve(&reference, Some(&platform)).await.unwrap();
        assert_eq!(resolved.layers.len(), 1);
        assert_eq!(resolved.layers[0].diff_id, diff_id);
        if *tag != "index" {
            assert_eq!(resolved.layers[0].compression, *compression, "{tag}");
        }
        let mut stream = client.layer(&resolved, 0).await.unwrap();
        let mut hash = sha2::Sha256::new();
        while let Some(piece) = stream.next().await {
            hash.update(piece.unwrap());
        }
        assert_eq!(digest_text(hash), resolved.layers[0].digest, "{tag}");
        let pinned = format!("{}/team/app@{}", registry.address, resolved.manifest_digest);
        let again = client
            .resolve(&pinned.parse().unwrap(), None)
            .await
            .unwrap();
        assert_eq!(again.config_digest, resolved.config_digest);
    }
    let missing: Reference = format!("{}/team/app:none", registry.address)
        .parse()
        .unwrap();
    let text = client
        .resolve(&missing, None)
        .await
        .unwrap_err()
        .to_string();
    assert!(text.contains("HTTP 404"), "{text}");
}
