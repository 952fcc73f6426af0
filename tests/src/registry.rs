//! Debian's docker-registry on a free port of loopback.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    Environment,
    command::{self, until},
    error::{Error, Result},
};

/// A registry that does not listen by then never will.
const START_S: u64 = 20;

/// A running registry; ended when dropped. Its storage is a folder of this run.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    port: u16,
    storage: PathBuf,
}

impl Registry {
    /// Starts one with empty storage.
    ///
    /// # Errors
    /// When docker-registry is missing or does not listen.
    pub fn start(environment: &Environment) -> Result<Self> {
        let port = free_port()?;
        let storage = environment.work.join(format!("registry-{port}"));
        fs::create_dir_all(&storage).map_err(Error::io(format!("make {}", storage.display())))?;
        let config = storage.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}/data}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            storage.display()
        );
        crate::environment::write(&config, &text)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("start docker-registry"))?;
        let registry = Self {
            child,
            port,
            storage,
        };
        until(START_S, "docker-registry to listen", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        })?;
        Ok(registry)
    }

    /// `127.0.0.1:port`, the first part of references.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Copies an image (an OCI layout, see [`crate::image`]) here; yields its full reference.
    ///
    /// # Errors
    /// When skopeo fails.
    pub fn push(&self, layout: &Path, name: &str) -> Result<String> {
        let reference = format!("{}/{name}", self.address());
        let mut skopeo = Command::new("skopeo");
        skopeo
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--all",
                "--dest-tls-verify=false",
            ])
            .arg(format!("oci:{}:latest", layout.display()))
            .arg(format!("docker://{reference}"))
            .env("TMPDIR", &self.storage);
        command::check(&mut skopeo)?;
        Ok(reference)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.storage).ok();
    }
}

/// A port of loopback that nobody listens on at the moment.
///
/// # Errors
/// When the kernel gives none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(Error::io("find a free port"))?;
    let address = listener
        .local_addr()
        .map_err(Error::io("ask for the port's number"))?;
    Ok(address.port())
}
