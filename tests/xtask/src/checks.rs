//! Format, lints and tidy: everything that needs no running rcd.

use rcd_tests::{Error, Result, tidy};

use crate::{Outcome, build};

/// Runs all checks, and says whether all passed.
pub(crate) fn all() -> Result<bool> {
    let mut sound = true;
    for arguments in [
        &["fmt", "--all", "--check"][..],
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ][..],
    ] {
        println!("== cargo {}", arguments.join(" "));
        let status = build::cargo()
            .args(arguments)
            .status()
            .map_err(Error::io("run cargo"))?;
        sound &= status.success();
    }
    println!("== tidy");
    Ok(tidy()? == 0 && sound)
}

/// Runs the tidy checks; the exit code is 1 if one finds something.
pub(crate) fn tidy() -> Outcome {
    let metadata = build::cargo()
        .args(["metadata", "--format-version=1", "--no-deps"])
        .output();
    let metadata = metadata.map_err(Error::io("run cargo metadata"))?;
    let metadata = String::from_utf8_lossy(&metadata.stdout);
    let findings = tidy::check(&build::root(), &metadata)?;
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} findings", findings.len());
    Ok(u8::from(!findings.is_empty()))
}
