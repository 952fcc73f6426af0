//! What can go wrong between a reference and its bytes.

use crate::Reference;

/// A failure; its text names the object and, where there is one, what the user can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no image reference.
    #[error("invalid image reference `{text}`: {reason}")]
    Reference {
        /// The text, shortened.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The text is no platform.
    #[error(
        "invalid platform `{text}`: expected os/architecture[/variant], such as linux/arm64/v8"
    )]
    Platform {
        /// The text.
        text: String,
    },
    /// No usable TLS, for example because the machine has no certificate authorities.
    #[error("cannot set up TLS (are the machine's CA certificates installed?)")]
    TlsSetup {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// No answer from the host: name unknown, refused, timed out, certificate.
    #[error("no answer from {host}: {reason}")]
    Unreachable {
        /// What was being pulled.
        reference: Box<Reference>,
        /// Host and port.
        host: String,
        /// The failure in short, and what to do.
        reason: &'static str,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// No byte arrived for too long.
    #[error("{host} sent nothing for {seconds} s while serving {object}")]
    Stalled {
        /// What was being pulled.
        reference: Box<Reference>,
        /// Host and port.
        host: String,
        /// Manifest, config or layer.
        object: String,
        /// The limit in seconds.
        seconds: u64,
    },
    /// The connection broke more often than it is resumed.
    #[error("transfer of {object} from {host} broke {attempts} times")]
    Broken {
        /// What was being pulled.
        reference: Box<Reference>,
        /// Host and port.
        host: String,
        /// Manifest, config or layer.
        object: String,
        /// Connections made.
        attempts: u32,
        /// The last break, unless the body just ended early.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The registry has no such manifest or blob.
    #[error(
        "{host} has no {object} (HTTP 404): check name and tag{}",
        detail(message)
    )]
    NotFound {
        /// What was being pulled.
        reference: Box<Reference>,
        /// Host and port.
        host: String,
        /// Manifest, config or layer.
        object: String,
        /// The registry's own words, or nothing.
        message: String,
    },
    /// The registry wants other credentials.
    #[error(
        "{host} denies access (HTTP {status}): the repository does not \
         exist or needs credentials, see `auths` in ~/.docker/config.json{}",
        detail(message)
    )]
    Unauthorized {
        /// What was being pulled.
        reference: Box<Reference>,
        /// Host and port.
        host: String,
        /// HTTP status.
        status: u16,
        /// The registry's own words, or nothing.
        message: String,
    },
    /// Any other refusal.
    #[error("{host} answered HTTP {status} for {object}{}", detail(message))]
    Status {
        /// What was being pulled.
        reference: Box<Reference>,
        /// Host and port.
        host: String,
        /// Manifest, config or layer.
        object: String,
        /// HTTP status.
        status: u16,
        /// The registry's own words, or nothing.
        message: String,
    },
    /// The registry's answer breaks the protocol.
    #[error("{host} sent a bad answer for {object}: {reason}")]
    Protocol {
        /// What was being pulled.
        reference: Box<Reference>,
        /// Host and port.
        host: String,
        /// Manifest, config, layer or token.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest or config that rcd cannot use.
    #[error("cannot use {object} of {reference}: {reason}")]
    Manifest {
        /// What was being pulled.
        reference: Box<Reference>,
        /// Manifest or config, with its digest where known.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not those that the digest or the size promised.
    #[error("{object} from {host} is corrupt: expected {expected}, got {actual}")]
    Corrupt {
        /// What was being pulled.
        reference: Box<Reference>,
        /// Host and port.
        host: String,
        /// Manifest, config or layer.
        object: String,
        /// Digest or size as promised.
        expected: String,
        /// Digest or size as received.
        actual: String,
    },
    /// Larger than rcd accepts.
    #[error("{object} has more than {bytes_max} bytes")]
    TooLarge {
        /// What was being pulled.
        reference: Box<Reference>,
        /// Manifest, config or token.
        object: String,
        /// The limit in bytes.
        bytes_max: u64,
    },
    /// The image exists, but not for this platform.
    #[error("{reference} has no image for {wanted}; it has {}", available.join(", "))]
    NoPlatform {
        /// What was being pulled.
        reference: Box<Reference>,
        /// The platform asked for.
        wanted: String,
        /// Those that there are.
        available: Vec<String>,
    },
    /// A credentials file that is there and cannot be used.
    #[error("cannot use credentials file {path}: {reason}")]
    Credentials {
        /// The file.
        path: String,
        /// What is wrong with it, or what to do.
        reason: String,
    },
}

fn detail(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}
