//! What a [`Registry`](crate::Registry) is told, with the limits that hold without being told.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for a connection and its TLS handshake.
const CONNECT_SECONDS_MAX: u64 = 15;

/// Longest wait for the next byte. Registries that fetch from elsewhere may pause for some seconds.
const STALL_SECONDS_MAX: u64 = 30;

/// Wait before the first retry; each further one waits twice as long.
const BACKOFF_MS: u64 = 250;

/// Settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Registries, as `host` or `host:port`, that may lack a valid certificate, or TLS at all.
    /// Loopback addresses always may.
    pub insecure: Vec<String>,
    /// Files with credentials, asked in this order.
    pub auth_files: Vec<PathBuf>,
    /// How long to wait.
    pub timeouts: Timeouts,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the next byte of an answer.
    pub stall: Duration,
    /// Before the first retry.
    pub backoff: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            auth_files: crate::auth::credential_files(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(CONNECT_SECONDS_MAX),
            stall: Duration::from_secs(STALL_SECONDS_MAX),
            backoff: Duration::from_millis(BACKOFF_MS),
        }
    }
}

impl Config {
    /// Whether a registry may be spoken to without TLS.
    pub(crate) fn allows_plain(&self, host: &str) -> bool {
        is_loopback(host) || self.is_insecure(host)
    }

    /// Whether it is listed, with its port or without.
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        let name = split_port(host);
        self.insecure
            .iter()
            .any(|listed| listed == host || listed == name)
    }
}

/// Whether a `host[:port]` is of this machine by name: 127.0.0.0/8, `::1`, `localhost`.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = split_port(host);
    name.eq_ignore_ascii_case("localhost")
        || name
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|ip| match ip {
                IpAddr::V4(ip) => ip.is_loopback(),
                IpAddr::V6(ip) => {
                    ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
                }
            })
}

/// The host without its port.
fn split_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_by_name() {
        for host in [
            "localhost",
            "LOCALHOST:5000",
            "127.0.0.1:5",
            "127.9.9.9",
            "[::1]:5",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.x.io",
            "128.0.0.1",
            "[::2]:5",
            "127.0.0.1.x.io",
            "docker.io",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn insecure_registries_are_listed_with_or_without_port() {
        let insecure = vec!["a.io".to_owned(), "b.io:5000".to_owned()];
        let config = Config {
            insecure,
            ..Config::default()
        };
        for (host, expected) in [
            ("a.io", true),
            ("a.io:1", true),
            ("b.io:5000", true),
            ("b.io", false),
            ("c.io", false),
        ] {
            assert_eq!(config.allows_plain(host), expected, "{host}");
        }
    }
}
