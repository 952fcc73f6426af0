//! Failures of requests as [`Error`]s: whose they are, whether to try again, why in plain words.

use std::error::Error as _;

use serde::Deserialize;

use crate::{Error, Reference};

/// How much of a registry's own words an error repeats, in characters.
const MESSAGE_CHARS_MAX: usize = 200;

/// What a request is about, for errors.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) reference: Box<Reference>,
    pub(crate) object: String,
}

/// Whether a repetition may help: a broken or stalled answer, a busy or failing server.
pub(crate) fn is_transient(error: &Error) -> bool {
    match error {
        Error::Broken { .. } | Error::Stalled { .. } => true,
        Error::Status { status, .. } => *status == 429 || *status == 408 || *status >= 500,
        _ => false,
    }
}

/// An answer that breaks the protocol.
pub(crate) fn protocol(subject: &Subject, reason: &str) -> Error {
    let Subject { reference, object } = subject.clone();
    let host = reference.host().to_owned();
    Error::Protocol {
        reference,
        host,
        object,
        reason: reason.to_owned(),
    }
}

/// A connection that broke after so many attempts.
pub(crate) fn broken(subject: &Subject, attempts: u32, source: Option<reqwest::Error>) -> Error {
    let Subject { reference, object } = subject.clone();
    let host = reference.host().to_owned();
    Error::Broken {
        reference,
        host,
        object,
        attempts,
        source: source.map(reqwest::Error::without_url),
    }
}

/// A connection that never came to be.
pub(crate) fn unreachable(subject: &Subject, source: reqwest::Error) -> Error {
    let reference = subject.reference.clone();
    let host = reference.host().to_owned();
    let reason = reason(&source);
    Error::Unreachable {
        reference,
        host,
        reason,
        source: source.without_url(),
    }
}

/// A failed connection in the user's terms.
fn reason(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        return "the connection timed out (check the network)";
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return "its TLS certificate is not accepted (trust its CA, or list it as insecure)";
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    return "connection refused (is the registry running, and the port right?)";
                }
                std::io::ErrorKind::NetworkUnreachable | std::io::ErrorKind::HostUnreachable => {
                    return "no route to it (check the network)";
                }
                _ => {}
            }
            if io
                .get_ref()
                .is_some_and(|inner| inner.is::<rustls::Error>())
            {
                return "its TLS certificate is not accepted (trust its CA, or list it as insecure)";
            }
        }
        if error.to_string().starts_with("dns error") {
            return "its name cannot be resolved (check the name and the network)";
        }
        cause = error.source();
    }
    "the connection failed"
}

/// The first error message of a registry's JSON, made harmless for terminals.
pub(crate) fn registry_message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        message: String,
    }
    let envelope: Option<Envelope> = serde_json::from_slice(body).ok();
    let first = envelope.and_then(|envelope| envelope.errors.into_iter().next());
    let message = first.map(|entry| entry.message).unwrap_or_default();
    message
        .chars()
        .filter(|c| !c.is_control())
        .take(MESSAGE_CHARS_MAX)
        .collect()
}
