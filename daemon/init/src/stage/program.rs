//! Finding the program and executing it.
//!
//! The program is tried in each directory of the container's `PATH` by executing it: so what is
//! checked is what runs. ENOENT means exit code 127, everything else 126, as Docker's. Relative
//! entries of `PATH` are passed over, as by Docker.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, execve, faccessat};

use super::failure::{At, Result, refuse};
use crate::protocol::{Failure, Step};

/// Where programs are sought if the environment has no `PATH` (moby `oci.DefaultPathEnv`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a program that does not start is read to say why: linkers put the program headers and
/// the loader's name on the first page.
const HEAD_BYTES: u64 = 4096;

/// Arguments and environment, ready for the kernel.
#[derive(Debug)]
pub(super) struct Program {
    argv: Vec<CString>,
    env: Vec<CString>,
    /// Full paths to try, in order.
    candidates: Vec<CString>,
}

impl Program {
    /// Prepares `argv` and `env`; `home` is put into the environment if it has no `HOME`.
    pub(super) fn new(argv: &[String], env: &[String], home: &str) -> Result<Self> {
        let name = argv.first().map_or("", String::as_str);
        if name.is_empty() {
            return Err(refuse(Step::Exec, "", "no program is given"));
        }
        let value = |key: &str| env.iter().rev().find_map(|pair| pair.strip_prefix(key));
        let candidates = if name.contains('/') {
            vec![name.to_owned()]
        } else {
            let path = value("PATH=").unwrap_or(DEFAULT_PATH);
            let absolute = path
                .split(':')
                .filter(|directory| directory.starts_with('/'));
            absolute
                .map(|directory| format!("{directory}/{name}"))
                .collect()
        };
        let home = value("HOME=").is_none().then(|| format!("HOME={home}"));
        Ok(Self {
            argv: c_strings(argv.iter())?,
            env: c_strings(env.iter().chain(home.iter()))?,
            candidates: c_strings(candidates.iter())?,
        })
    }

    /// Becomes the program, or says why not.
    pub(super) fn execute(&self) -> Result<Infallible> {
        let mut denied = None;
        for path in &self.candidates {
            let Err(errno) = execve(path, &self.argv, &self.env);
            match errno {
                Errno::ENOENT if exists(path) => return Err(failure(path, errno)),
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => denied = denied.or(Some(path)),
                _ => return Err(failure(path, errno)),
            }
        }
        if let Some(path) = denied {
            return Err(failure(path, Errno::EACCES));
        }
        let name = self
            .argv
            .first()
            .map(|name| name.to_string_lossy())
            .unwrap_or_default();
        Err(Errno::ENOENT).at_because(Step::Exec, &name, |_| {
            if name.contains('/') {
                "there is no such file in the container"
            } else {
                "there is no program of that name in the container's PATH"
            }
            .into()
        })
    }
}

fn c_strings<'a>(texts: impl Iterator<Item = &'a String>) -> Result<Vec<CString>> {
    texts
        .map(|text| {
            CString::new(text.as_str())
                .map_err(|_| refuse(Step::Exec, text.escape_default(), "it contains NUL"))
        })
        .collect()
}

/// Whether there is a file at all; then ENOENT speaks of its interpreter.
fn exists(path: &CString) -> bool {
    faccessat(
        AT_FDCWD,
        path.as_c_str(),
        AccessFlags::F_OK,
        AtFlags::empty(),
    )
    .is_ok()
}

fn failure(path: &CString, errno: Errno) -> Failure {
    let head = head(path);
    let detail = match errno {
        Errno::ENOENT => match interpreter(&head) {
            Some(name) => format!("the script's interpreter {name} is missing in the container"),
            None if head.starts_with(b"\x7fELF") => {
                let name = loader(&head).unwrap_or_default();
                format!(
                    "the program's dynamic loader {name} is missing in the container: it was built \
                     for another C library or machine"
                )
            }
            None => String::new(),
        },
        Errno::EACCES => "it is a directory, is not executable for this user, or lies on a mount \
            with noexec"
            .into(),
        Errno::ENOEXEC if head.starts_with(b"\x7fELF") => {
            "exec format error: the program is for another kind of machine".into()
        }
        Errno::ENOEXEC => "exec format error: neither a program nor a script that begins with \
            #! and its interpreter"
            .into(),
        Errno::E2BIG => "arguments and environment are larger than the kernel takes".into(),
        _ => String::new(),
    };
    let path = OsStr::from_bytes(path.to_bytes())
        .to_string_lossy()
        .into_owned();
    match Err::<Infallible, _>(errno).at_because(Step::Exec, path, |_| detail) {
        Err(failure) => failure,
    }
}

/// The beginning of a file; empty if it cannot be read.
fn head(path: &CString) -> Vec<u8> {
    let mut bytes = Vec::new();
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    if let Ok(fd) = open(path.as_c_str(), flags, Mode::empty()) {
        // What was read before an error is good enough for a hint.
        let _ = File::from(fd).take(HEAD_BYTES).read_to_end(&mut bytes);
    }
    bytes
}

/// The interpreter in a script's first line.
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head
        .strip_prefix(b"#!")?
        .split(|&byte| byte == b'\n')
        .next()?;
    let text = String::from_utf8_lossy(line);
    let name = text.split_whitespace().next()?.to_owned();
    // The carriage return of a script written on Windows is part of the name that is sought.
    Some(if line.ends_with(b"\r") {
        format!("\"{name}\\r\" (the line ends in CR LF)")
    } else {
        name
    })
}

/// The dynamic loader of a 64-bit little-endian ELF file (elf(5), PT_INTERP).
fn loader(head: &[u8]) -> Option<String> {
    const PT_INTERP: u64 = 3;
    // Reads `width` bytes as a number.
    let field = |offset: u64, width: usize| -> Option<u64> {
        let start = usize::try_from(offset).ok()?;
        let bytes = head.get(start..start.checked_add(width)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |number, &byte| number << 8 | u64::from(byte)),
        )
    };
    let (is_64_bit, little_endian) = (field(4, 1)? == 2, field(5, 1)? == 1);
    if !is_64_bit || !little_endian {
        return None;
    }
    let (table, size, count) = (field(32, 8)?, field(54, 2)?, field(56, 2)?);
    let header = (0..count)
        .map_while(|index| table.checked_add(index * size))
        .find(|header| field(*header, 4) == Some(PT_INTERP))?;
    let start = usize::try_from(field(header.checked_add(8)?, 8)?).ok()?;
    let name = head.get(start..)?.split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(strings: &[&str]) -> Vec<String> {
        strings.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_name_is_sought_in_absolute_directories_of_path() {
        let cases: [(&str, &[&str], &[&str]); 4] = [
            ("sh", &["PATH=/a:b::/c"], &["/a/sh", "/c/sh"]),
            ("./sh", &["PATH=/a"], &["./sh"]),
            ("/x/sh", &[], &["/x/sh"]),
            ("sh", &["PATH=/old", "PATH=/new"], &["/new/sh"]),
        ];
        for (name, env, want) in cases {
            let program = Program::new(&texts(&[name]), &texts(env), "/").unwrap();
            let got: Vec<_> = program
                .candidates
                .iter()
                .map(|c| c.to_str().unwrap())
                .collect();
            assert_eq!(got, want, "{name} {env:?}");
        }
        let program = Program::new(&texts(&["sh"]), &[], "/").unwrap();
        assert_eq!(program.candidates.len(), 6);
    }

    #[test]
    fn home_is_added_only_where_it_is_missing() {
        let given = Program::new(&texts(&["x"]), &texts(&["HOME=/h"]), "/root").unwrap();
        assert_eq!(given.env, [c"HOME=/h".to_owned()]);
        let added = Program::new(&texts(&["x"]), &[], "/root").unwrap();
        assert_eq!(added.env, [c"HOME=/root".to_owned()]);
    }

    #[test]
    fn nul_and_emptiness_are_refused() {
        assert!(Program::new(&[], &[], "/").is_err());
        assert!(Program::new(&texts(&[""]), &[], "/").is_err());
        assert!(Program::new(&texts(&["a\0b"]), &[], "/").is_err());
        assert!(Program::new(&texts(&["a"]), &texts(&["A=\0"]), "/").is_err());
    }

    #[test]
    fn interpreters_are_read_from_the_first_line() {
        assert_eq!(interpreter(b"#! /bin/sh -e\nx").as_deref(), Some("/bin/sh"));
        assert_eq!(interpreter(b"#!/bin/sh").as_deref(), Some("/bin/sh"));
        assert!(interpreter(b"#!/bin/sh\r\n").unwrap().contains("CR LF"));
        assert_eq!(interpreter(b"#!\n"), None);
        assert_eq!(interpreter(b"\x7fELF"), None);
    }

    #[test]
    fn a_loader_is_named_or_nothing_is() {
        let mut file = vec![0; 400];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (file[32], file[54], file[56]) = (64, 56, 2);
        file[64 + 56] = 3;
        (file[64 + 56 + 8], file[64 + 56 + 9]) = (0x2c, 0x01);
        file[300..311].copy_from_slice(b"/lib/ld.so\0");
        assert_eq!(loader(&file).as_deref(), Some("/lib/ld.so"));
        for length in 0..300 {
            assert_eq!(loader(&file[..length]), None, "{length}");
        }
        file[32..40].fill(0xff);
        assert_eq!(loader(&file), None);
        assert_eq!(loader(b"\x7fELF"), None);
    }
}
