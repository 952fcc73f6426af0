//! Wrong or hostile input: a clear error, and nothing left behind.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::UnixStream,
    process::Command,
    thread,
};

use rcd_tests::{
    Daemon, Environment, Service,
    command::check,
    environment::write,
    harness::{Verdict, skip},
    registry::free_port,
};

use crate::support::{assert_code, assert_refused, busybox};

#[track_caller]
fn nothing_left(rcd: &Service) {
    let output = rcd.rc(&["ps", "-aq"]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, ""),
        "containers are left behind"
    );
}

pub(crate) fn command_not_found(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let output = rcd.rc(&["run", "--rm", "busybox", "nonsense-program"]);
    assert_refused(&output, 127, &["nonsense-program", "no such file"]);
    nothing_left(&rcd);
    Ok(())
}

pub(crate) fn command_not_executable(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let output = rcd.rc(&["run", "--rm", "busybox", "/etc/not-a-program"]);
    assert_refused(&output, 126, &["/etc/not-a-program", "permission denied"]);
    nothing_left(&rcd);
    Ok(())
}

pub(crate) fn missing_working_directory(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let output = rcd.rc(&["run", "--rm", "-w", "/no/place", "busybox", "pwd"]);
    assert_refused(&output, 126, &["/no/place", "directory"]);
    let output = rcd.rc(&["run", "--rm", "-w", "/etc/passwd/x", "busybox", "pwd"]);
    assert!(
        [125, 126].contains(&output.code),
        "{} {}",
        output.code,
        output.stderr
    );
    assert!(output.stderr.contains("/etc/passwd/x"), "{}", output.stderr);
    nothing_left(&rcd);
    Ok(())
}

pub(crate) fn unknown_user(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    for user in ["stranger", "app:strangers"] {
        let output = rcd.rc(&["run", "--rm", "-u", user, "busybox", "true"]);
        assert!(
            [125, 126].contains(&output.code),
            "{} {}",
            output.code,
            output.stderr
        );
        assert!(output.stderr.contains("stranger"), "{}", output.stderr);
    }
    nothing_left(&rcd);
    Ok(())
}

pub(crate) fn missing_bind_source(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let output = rcd.rc(&["run", "--rm", "-v", "/no/such/source:/x", "busybox", "true"]);
    assert_refused(&output, 125, &["/no/such/source"]);
    nothing_left(&rcd);
    Ok(())
}

pub(crate) fn two_of_one_name(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let id = rcd.rc_ok(&["create", "--name", "same", "busybox", "true"])?;
    let output = rcd.rc(&["create", "--name", "same", "busybox", "true"]);
    assert_refused(&output, 125, &["same", &id[..12]]);
    assert_eq!(rcd.rc_ok(&["ps", "-aq"])?.lines().count(), 1);
    Ok(())
}

pub(crate) fn image_not_found(environment: &Environment) -> Verdict {
    let rcd = Service::start(environment)?;
    let registry = rcd_tests::Registry::start(environment)?;
    let reference = format!("{}/nobody/knows:1", registry.address());
    assert_refused(&rcd.rc(&["pull", &reference]), 1, &["nobody/knows"]);
    assert_refused(
        &rcd.rc(&["run", &reference, "true"]),
        125,
        &["nobody/knows"],
    );
    for reference in ["a:b:c", "", "x@sha256:short"] {
        assert_refused(&rcd.rc(&["pull", reference]), 1, &["reference"]);
    }
    nothing_left(&rcd);
    Ok(())
}

pub(crate) fn registry_down(environment: &Environment) -> Verdict {
    let rcd = Service::start(environment)?;
    let reference = format!("127.0.0.1:{}/x:1", free_port()?);
    assert_refused(&rcd.rc(&["pull", &reference]), 1, &["127.0.0.1", "refused"]);
    nothing_left(&rcd);
    Ok(())
}

pub(crate) fn no_such_container(environment: &Environment) -> Verdict {
    let rcd = Service::start(environment)?;
    for verb in [
        "start", "stop", "kill", "rm", "logs", "wait", "attach", "inspect",
    ] {
        assert_refused(&rcd.rc(&[verb, "nobody"]), 1, &["no such", "nobody"]);
    }
    Ok(())
}

pub(crate) fn flags_that_are_not_there_yet(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    for flag in [
        ["-p", "80:80"],
        ["--memory", "1g"],
        ["--network", "mine"],
        ["--userns", "auto"],
    ] {
        let output = rcd.rc(&["run", "--rm", flag[0], flag[1], "busybox", "true"]);
        assert_refused(&output, 125, &[flag[0].trim_start_matches('-')]);
    }
    nothing_left(&rcd);
    Ok(())
}

/// Archives that try to write outside, made with Python because tar itself refuses to.
const HOSTILE: &str = r#"
import io, sys, tarfile
kind, path = sys.argv[1:]
t = tarfile.open(path, "w", format=tarfile.GNU_FORMAT)
def add(name, type=tarfile.REGTYPE, link="", data=b"x"):
    i = tarfile.TarInfo(name); i.type = type; i.linkname = link
    i.size = len(data) if type == tarfile.REGTYPE else 0
    t.addfile(i, io.BytesIO(data) if i.size else None)
{"dotdot": lambda: add("../../../../escaped"),
 "absolute": lambda: add("/absolute-escaped"),
 "symlink": lambda: (add("out", tarfile.SYMTYPE, "../../../.."), add("out/escaped")),
 "hardlink": lambda: add("stolen", tarfile.LNKTYPE, "../../../../../../etc/hostname"),
 "name": lambda: add("n" * 5000),
 "overlay": lambda: add(".wh.."),
}[kind]()
t.close()
if kind == "name": open(path, "ab").write(b"garbage")
"#;

pub(crate) fn hostile_archives(environment: &Environment) -> Verdict {
    if !rcd_tests::image::has_program("python3") {
        skip("python3, which writes the archives, is not installed");
    }
    let rcd = Service::start(environment)?;
    let home = rcd.sandbox().home.clone();
    for kind in [
        "dotdot", "absolute", "symlink", "hardlink", "name", "overlay",
    ] {
        let tar = home.join(format!("{kind}.tar"));
        check(
            Command::new("python3")
                .args(["-c", HOSTILE, kind])
                .arg(&tar),
        )?;
        let output = rcd.rc(&["import", &tar.to_string_lossy(), &format!("hostile:{kind}")]);
        assert!([0, 1].contains(&output.code), "{kind}: {}", output.stderr);
        assert!(
            !output.stderr.contains("panicked"),
            "{kind}: {}",
            output.stderr
        );
        let find = format!(
            "find '{}' -name '*escaped' -not -path '*/layers/*'",
            home.display()
        );
        let found = check(Command::new("unshare").args(["-r", "--map-auto", "sh", "-c", &find]))?;
        assert_eq!(found, "", "{kind} wrote outside of its layer");
    }
    let half = home.join("half.tar");
    fs::write(&half, [0x55; 1000]).unwrap();
    assert_refused(
        &rcd.rc(&["import", &half.to_string_lossy(), "half:1"]),
        1,
        &[],
    );
    rcd.rc_ok(&["images"])?;
    Ok(())
}

/// A web server that answers everything with `answer(path)`, then closes.
fn serve(answer: fn(&str) -> Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().take(64) {
            let Ok(mut stream) = stream else { continue };
            thread::spawn(move || {
                let mut request = vec![0; 8192];
                let count = stream.read(&mut request).unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..count]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or("/").to_owned();
                stream.write_all(&answer(&path)).ok();
            });
        }
    });
    address.to_string()
}

fn reply(kind: &str, body: &str, length: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n");
    format!("{head}Connection: close\r\n\r\n{body}").into_bytes()
}

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest() -> String {
    let (config, layer) = ("main".repeat(64), "other".repeat(64));
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}",
        "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{config}","size":20}},
        "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{layer}","size":1024}}]}}"#
    )
}

fn pull_is_refused(environment: &Environment, answer: fn(&str) -> Vec<u8>) -> Verdict {
    let rcd = Service::start(environment)?;
    let output = rcd.rc(&["pull", &format!("{}/x:1", serve(answer))]);
    assert_refused(&output, 1, &["127.0.0.1"]);
    assert_eq!(rcd.rc_ok(&["images", "-q"])?, "");
    Ok(())
}

pub(crate) fn registry_that_lies(environment: &Environment) -> Verdict {
    pull_is_refused(environment, |path| match path {
        path if path.contains("/manifests/") => reply(MANIFEST_TYPE, &manifest(), manifest().len()),
        path if path.contains("/blobs/") => {
            reply("application/octet-stream", "{\"not\": \"it\"}    ", 17)
        }
        _ => reply("application/json", "{}", 2),
    })?;
    pull_is_refused(environment, |path| match path {
        path if path.contains("/manifests/") => reply(MANIFEST_TYPE, "{\"layers\": 7", 12),
        _ => reply("application/json", "{}", 2),
    })
}

pub(crate) fn registry_that_cuts_the_transfer(environment: &Environment) -> Verdict {
    pull_is_refused(environment, |path| match path {
        path if path.contains("/manifests/") => {
            reply(MANIFEST_TYPE, &manifest()[..40], manifest().len())
        }
        _ => reply("application/json", "{}", 2),
    })
}

pub(crate) fn garbage_on_the_socket(environment: &Environment) -> Verdict {
    let rcd = Service::start(environment)?;
    let messages: [&[u8]; 6] = [
        b"\0",
        b"nonsense\0",
        b"{\"method\": 7}\0",
        b"{\"method\": \"io.rcd.Container.List\", \"parameters\": {\"all\": \"x\"}}\0",
        b"{\"method\": \"io.rcd.Nothing.At\"}\0",
        &[0xff; 4096],
    ];
    for message in messages {
        let mut stream = UnixStream::connect(rcd.sandbox().socket()).unwrap();
        stream.write_all(message).unwrap();
        stream.shutdown(std::net::Shutdown::Write).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        rcd.rc_ok(&["ps"])?;
    }
    Ok(())
}

pub(crate) fn data_directory_that_cannot_be_one(environment: &Environment) -> Verdict {
    let sandbox = environment.sandbox("ro")?;
    // A mode would not do: the daemon is root of its user namespace.
    write(&sandbox.data(), "a file")?;
    let error = match Service::start_in(sandbox) {
        Ok(_) => panic!("a daemon started without a place for its data"),
        Err(error) => error.chain(),
    };
    assert!(
        error.contains("/rcd"),
        "the directory is not named: {error}"
    );
    Ok(())
}

pub(crate) fn bad_configuration(environment: &Environment) -> Verdict {
    let sandbox = environment.sandbox("cfg")?;
    sandbox.configure("rcd/rcd.toml", "no-such-setting = 1\n")?;
    let error = match Service::start_in(sandbox) {
        Ok(_) => panic!("a setting that cannot be honoured was ignored"),
        Err(error) => error.chain(),
    };
    assert!(
        error.contains("rcd.toml") && error.contains("no-such-setting"),
        "{error}"
    );
    let rcd = Service::start(environment)?;
    assert_code(&rcd.rc(&["ps"]), 0);
    Ok(())
}
