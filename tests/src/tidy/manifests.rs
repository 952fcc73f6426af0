//! Lint tables: every crate inherits the workspace's, which forbid `unsafe` and demand docs.

use super::Finding;

/// Lints without which the rules would not hold.
const DEMANDED: [&str; 6] = [
    "missing_docs = ",
    "unsafe_code = \"forbid\"",
    "unwrap_used = ",
    "expect_used = ",
    "panic = ",
    "undocumented_unsafe_blocks = ",
];

/// The crate that may contain `unsafe`, and therefore has a table of its own.
const UNSAFE_CRATE: &str = "daemon/sys/Cargo.toml";

/// Checks one manifest.
#[must_use]
pub fn check(name: &str, text: &str) -> Vec<Finding> {
    if name == "Cargo.toml" {
        let missing = DEMANDED.iter().filter(|lint| !text.contains(**lint));
        return missing
            .map(|lint| Finding::new(name, format!("lacks the lint {lint}")))
            .collect();
    }
    let inherits = text.contains("[lints]\nworkspace = true");
    let own = name == UNSAFE_CRATE && text.contains("missing_docs");
    let mut findings = Vec::new();
    // A table of its own may also stand at the top of the crate.
    if !inherits && !own && name != UNSAFE_CRATE {
        findings.push(Finding::new(name, "does not inherit the workspace's lints"));
    }
    for line in text
        .lines()
        .filter(|line| line.contains("git = \"") || line.contains("= \"*\""))
    {
        findings.push(Finding::new(name, format!("has no fixed version: {line}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_crate_without_the_lints_is_found() {
        assert_eq!(check("a/Cargo.toml", "[lints]\nworkspace = true\n"), []);
        assert_eq!(check("a/Cargo.toml", "[package]\n").len(), 1);
        let wild = "[lints]\nworkspace = true\n[dependencies]\nx = \"*\"\n";
        assert_eq!(check("a/Cargo.toml", wild).len(), 1);
        assert_eq!(
            check("Cargo.toml", "[workspace]\n").len(),
            super::DEMANDED.len()
        );
    }
}
