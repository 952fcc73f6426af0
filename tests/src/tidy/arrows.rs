//! Which of our packages may depend on which.

use serde_json::Value;

use super::Finding;

/// Each package and the ones of ours that it may name in its manifest.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("rcd-proto", &[]),
    ("rcd-client", &["rcd-proto"]),
    ("rcd-sys", &[]),
    ("rcd-init", &["rcd-sys"]),
    ("rcd-runtime", &["rcd-init", "rcd-sys"]),
    ("rcd-store", &["rcd-sys"]),
    ("rcd-registry", &["rcd-sys"]),
    (
        "rcd-engine",
        &["rcd-store", "rcd-registry", "rcd-runtime", "rcd-sys"],
    ),
    // Start order: it opens the store and joins the holder before there is an engine.
    (
        "rcd",
        &[
            "rcd-proto",
            "rcd-engine",
            "rcd-store",
            "rcd-registry",
            "rcd-runtime",
            "rcd-sys",
        ],
    ),
    ("rcd-tests", &["rcd-proto"]),
    ("xtask", &["rcd-tests"]),
];

/// Packages of others that one of ours must never name, and why.
const FORBIDDEN: [(&str, &str, &str); 5] = [
    (
        "rcd-init",
        "tokio",
        "the holder has one thread, so that it may fork",
    ),
    ("rcd-proto", "tokio", "the contract does no I/O"),
    ("rcd-client", "tokio", "short calls use a blocking socket"),
    ("rcd-store", "tokio", "the store is synchronous"),
    (
        "rcd-store",
        "oci-client",
        "the store never sees the network",
    ),
];

/// Checks the packages of `cargo metadata`.
#[must_use]
pub fn check(metadata: &str) -> Vec<Finding> {
    let Ok(metadata) = serde_json::from_str::<Value>(metadata) else {
        return vec![Finding::new("cargo metadata", "is no JSON")];
    };
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            findings.push(Finding::new(
                name,
                "is a package that the architecture does not know",
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // What tests alone use is linked into nothing.
            if dependency["kind"] == "dev" {
                continue;
            }
            let target = dependency["name"].as_str().unwrap_or_default();
            let ours = ALLOWED.iter().any(|(known, _)| *known == target);
            if ours && !allowed.contains(&target) {
                findings.push(Finding::new(name, format!("must not depend on {target}")));
            }
            let forbidden = FORBIDDEN
                .iter()
                .find(|(of, what, _)| *of == name && *what == target);
            if let Some((.., reason)) = forbidden {
                findings.push(Finding::new(
                    name,
                    format!("must not use {target}: {reason}"),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;

    fn metadata(package: &str, dependency: &str, kind: &str) -> String {
        format!(
            r#"{{"packages": [{{"name": "{package}", "dependencies":
            [{{"name": "{dependency}", "kind": {kind}}}]}}]}}"#
        )
    }

    #[test]
    fn an_arrow_that_nobody_drew_is_found() {
        for (package, dependency, kind, count) in [
            ("rcd-engine", "rcd-store", "null", 0),
            ("rcd-store", "rcd-engine", "null", 1),
            ("rcd-store", "rcd-engine", "\"dev\"", 0),
            ("rcd-proto", "rcd-sys", "null", 1),
            ("rcd-client", "rcd-engine", "null", 1),
            ("rcd-init", "tokio", "null", 1),
            ("rcd-init", "nix", "null", 0),
            ("rcd-misc", "nix", "null", 1),
        ] {
            let found = check(&metadata(package, dependency, kind));
            assert_eq!(found.len(), count, "{package} -> {dependency}: {found:?}");
        }
        assert_eq!(check("nonsense").len(), 1);
    }
}
