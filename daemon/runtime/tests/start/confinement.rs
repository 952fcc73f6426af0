//! What the default filter and the cgroup namespace mean to programs in a container, and what a
//! container that fills its user's sockets means to the daemon.
//!
//! The programs are assembled here, byte by byte, so that no cross compiler or 32-bit C library is
//! needed: each makes one system call and exits with the errno that came of it.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcd_runtime::Error;
use rcd_sys::scm;

use super::{World, exec_options, kill, read, spawn};

/// Where the programs are loaded; any page above `vm.mmap_min_addr` does.
const BASE: u32 = 0x0804_8000;

/// `int $0x80`, the call of an i386 program.
const INT_80: [u8; 2] = [0xcd, 0x80];

/// `syscall`, the call of an `x86_64` program.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Sizes of an ELF file's header and of one program header (elf(5)).
const HEADERS_BYTES_32: u32 = 52 + 32;
const HEADERS_BYTES_64: u32 = 64 + 56;

/// What [`speaking_32`] writes, and its exit code.
const WORDS: &[u8] = b"thirty-two\n";
const SPEAKING_CODE: u8 = 32;

/// An executable of one segment that holds all of the file.
fn elf(class: u8, machine: u8, headers: u32, code: &[u8]) -> Vec<u8> {
    let wide = class == 2;
    let size = headers + u32::try_from(code.len()).unwrap();
    let mut file = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    let address = |file: &mut Vec<u8>, value: u32| match wide {
        true => file.extend(u64::from(value).to_le_bytes()),
        false => file.extend(value.to_le_bytes()),
    };
    half(&mut file, 2); // ET_EXEC
    half(&mut file, machine.into());
    word(&mut file, 1);
    address(&mut file, BASE + headers); // entry
    address(&mut file, if wide { 64 } else { 52 }); // program headers
    address(&mut file, 0); // section headers
    word(&mut file, 0);
    let (own, each): (u16, u16) = if wide { (64, 56) } else { (52, 32) };
    for value in [own, each, 1, 0, 0, 0] {
        half(&mut file, value);
    }
    word(&mut file, 1); // PT_LOAD
    if wide {
        word(&mut file, 5); // PF_R | PF_X
    }
    for value in [0, BASE, BASE, size, size] {
        address(&mut file, value);
    }
    if !wide {
        word(&mut file, 5);
    }
    address(&mut file, 0x1000);
    assert_eq!(file.len(), headers as usize);
    file.extend(code);
    file
}

/// `mov $value, register` for a 32-bit register by its number.
fn load(register: u8, value: u32) -> Vec<u8> {
    [&[0xb8 + register][..], &value.to_le_bytes()].concat()
}

/// i386: writes [`WORDS`] to descriptor 1 and exits.
fn speaking_32() -> Vec<u8> {
    let text_at = |code: u32| BASE + HEADERS_BYTES_32 + code;
    let length = u32::try_from(WORDS.len()).unwrap();
    let code = |text: u32| {
        let (eax, ecx, edx, ebx) = (0, 1, 2, 3);
        let write = [
            load(eax, 4),
            load(ebx, 1),
            load(ecx, text),
            load(edx, length),
        ];
        let exit = [load(eax, 1), load(ebx, SPEAKING_CODE.into())];
        [write.concat(), INT_80.into(), exit.concat(), INT_80.into()].concat()
    };
    let bytes = u32::try_from(code(0).len()).unwrap();
    let mut code = code(text_at(bytes));
    code.extend(WORDS);
    elf(1, 3, HEADERS_BYTES_32, &code)
}

/// i386: makes a call with arguments 0 and exits with its errno.
fn calling_32(number: u32) -> Vec<u8> {
    let mut code = load(0, number);
    // xor of ebx, ecx, edx, esi, edi with themselves
    code.extend([0x31, 0xdb, 0x31, 0xc9, 0x31, 0xd2, 0x31, 0xf6, 0x31, 0xff]);
    code.extend(INT_80);
    // neg %eax; mov %eax, %ebx
    code.extend([0xf7, 0xd8, 0x89, 0xc3]);
    code.extend(load(0, 1));
    code.extend(INT_80);
    elf(1, 3, HEADERS_BYTES_32, &code)
}

/// `x86_64`: makes a call with arguments 0 and exits with its errno.
fn calling_64(number: u32) -> Vec<u8> {
    let mut code = load(0, number);
    // xor of edi, esi, edx, r10, r8 with themselves
    code.extend([0x31, 0xff, 0x31, 0xf6, 0x31, 0xd2]);
    code.extend([0x4d, 0x31, 0xd2, 0x4d, 0x31, 0xc0]);
    code.extend(SYSCALL);
    // neg %eax; mov %eax, %edi
    code.extend([0xf7, 0xd8, 0x89, 0xc7]);
    code.extend(load(0, 60));
    code.extend(SYSCALL);
    elf(2, 62, HEADERS_BYTES_64, &code)
}

impl World {
    /// Programs for either interface of an `x86_64` machine run under the default filter; calls
    /// that it forbids get EPERM, and calls that no table knows ENOSYS, on which programs fall back.
    pub(crate) async fn system_calls(&mut self) {
        if cfg!(not(target_arch = "x86_64")) {
            return println!("skipped: the assembled programs are for x86_64");
        }
        // add_key with a null name would be EFAULT without the filter.
        let cases = [
            ("known64", calling_64(39), None),
            ("unknown64", calling_64(1000), Some(Errno::ENOSYS)),
            ("add_key64", calling_64(248), Some(Errno::EPERM)),
            ("kexec64", calling_64(246), Some(Errno::EPERM)),
            ("x32", calling_64(0x4000_0000 | 39), Some(Errno::ENOSYS)),
            ("unknown32", calling_32(1000), Some(Errno::ENOSYS)),
            ("add_key32", calling_32(286), Some(Errno::EPERM)),
        ];
        let speaking = self.program("speaking32", &speaking_32());
        let has_32 = Command::new(&speaking).output().is_ok();
        if !has_32 {
            println!("skipped: 32-bit programs, which this kernel does not run");
        }
        for (n, (name, file, errno)) in cases.into_iter().enumerate() {
            if name.ends_with("32") && name != "x32" && !has_32 {
                continue;
            }
            self.program(name, &file);
            let o = self.options(&format!("s{n}"), &[name]);
            let (code, _, stderr) = self.run(o).await;
            // getpid is 1 in the container, so known64 exits with -1.
            let expected = errno.map_or(255, |errno| errno as i32);
            assert_eq!((code, stderr.as_str()), (expected, ""), "{name}");
        }
        if has_32 {
            let (code, stdout, _) = self.run(self.options("s32", &["speaking32"])).await;
            let words = String::from_utf8_lossy(WORDS);
            assert_eq!((code, stdout.as_str()), (SPEAKING_CODE.into(), &*words));
        }
    }

    fn program(&self, name: &str, file: &[u8]) -> std::path::PathBuf {
        let path = self.dir.join("lower/bin").join(name);
        fs::write(&path, file).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// The kernel counts descriptors in transit for all processes of a user, a container's root
    /// among them, and refuses more than `RLIMIT_NOFILE`. That costs a start and not the holder.
    pub(crate) async fn full_sockets(&mut self) {
        const DESCRIPTORS_MAX: u64 = 512;
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        let full: Vec<_> = (0..8).map(|_| scm::pair().unwrap()).collect();
        for (socket, _) in full.iter().cycle().take(40) {
            scm::send(socket.as_fd(), b"x", &[null.as_fd(); scm::FDS_MAX]).unwrap();
        }
        setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX, hard).unwrap();
        let refused = self.runtime.spawn(self.options("t1", &["true"])).await;
        drop(full);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(
            matches!(refused, Err(Error::InTransit { .. })),
            "{refused:?}"
        );
        let (code, ..) = self.run(self.options("t2", &["true"])).await;
        assert_eq!(code, 0);
        assert!(self.runtime.list().await.unwrap().is_empty());
    }

    /// Init and exec both see the container's own cgroup as the root of all: their namespace's, and
    /// the mounted file system's, in which every process is one of the container.
    pub(crate) async fn own_cgroup(&mut self) {
        if self.runtime.cgroup_path("g").is_none() {
            return println!("skipped: cgroups, of which none is delegated here");
        }
        let script = "grep ^0:: /proc/self/cgroup; cd /sys/fs/cgroup; grep -x 1 cgroup.procs; \
            grep -cx 0 cgroup.procs; ls -d holder; ";
        let waits = format!("exec 2>&1; {script} > /tmp/seen; exec sleep 1000");
        let expected = "0::/\n1\n0\nls: holder: No such file or directory\n";
        let mut main = spawn(&self.runtime, self.options("g", &["sh", "-c", &waits])).await;
        let again = format!("exec 2>&1; until [ -e /tmp/seen ]; do sleep 0.01; done; {script}");
        let options = exec_options("g", "e", &["sh", "-c", &again], false);
        let mut exec = self.runtime.exec(options).await.unwrap();
        self.exit_of(&exec.key).await;
        let seen = read(exec.stdio.stdout.take().unwrap()).await;
        assert_eq!(seen, expected, "exec");
        kill(&main);
        self.exit_of(&main.key).await;
        let seen = read(main.stdio.stdout.take().unwrap()).await;
        assert_eq!(seen, expected, "init");
    }
}
