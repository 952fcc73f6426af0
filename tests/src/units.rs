//! rcd's systemd units, with the folder of the binaries filled in.

use std::{fs, path::Path};

use crate::error::{Error, Result};

/// Name and template of each unit.
pub const UNITS: [(&str, &str); 3] = [
    ("rcd.socket", include_str!("../../systemd/rcd.socket")),
    ("rcd.service", include_str!("../../systemd/rcd.service")),
    (
        "rcd-holder.service",
        include_str!("../../systemd/rcd-holder.service"),
    ),
];

/// Programs that belong together; rcd finds rcd-init beside itself.
pub const PROGRAMS: [&str; 3] = ["rc", "rcd", "rcd-init"];

/// Writes the units into `directory`, for binaries in `bin`.
///
/// # Errors
/// When a file cannot be written.
pub fn install_units(directory: &Path, bin: &Path) -> Result<()> {
    for (name, template) in UNITS {
        let text = template.replace("@BINDIR@", &bin.to_string_lossy());
        crate::environment::write(&directory.join(name), &text)?;
    }
    Ok(())
}

/// Copies the programs from `from` to `to`; a running one is replaced, not overwritten.
///
/// # Errors
/// When a file cannot be copied.
pub fn install_programs(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::io(format!("make {}", to.display())))?;
    for program in PROGRAMS {
        let target = to.join(program);
        let fresh = to.join(format!(".{program}.new"));
        fs::copy(from.join(program), &fresh)
            .and_then(|_| fs::rename(&fresh, &target))
            .map_err(Error::io(format!("install {}", target.display())))?;
    }
    Ok(())
}

/// Removes what the two functions above made; yields how many files there were.
pub fn uninstall(units: &Path, bin: &Path) -> usize {
    let unit_files = UNITS.iter().map(|(name, _)| units.join(name));
    let program_files = PROGRAMS.iter().map(|name| bin.join(name));
    unit_files
        .chain(program_files)
        .filter(|path| fs::remove_file(path).is_ok())
        .count()
}
