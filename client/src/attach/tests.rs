//! The pump against a daemon that is a thread with a script.

use std::io::{Seek, SeekFrom};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rcd_proto::types::container::{AttachParams, AttachReply};
use rcd_proto::wire::{self, Messages};

use super::*;
use crate::connection::Connection;

/// A file without a name.
fn scratch() -> File {
    let fd = nix::sys::memfd::memfd_create("scratch", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
    File::from(fd.unwrap())
}

fn content(mut file: &File) -> String {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// A socket in a directory of its own, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> (Place, UnixListener, Address) {
        let dir = std::env::temp_dir().join(format!("rc-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let address = Address::find(path.to_str()).unwrap();
        (Place(dir), listener, address)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Reads one call and answers it; gives its method and parameters.
fn answer(stream: &mut UnixStream, reply: &str) -> (String, Option<AttachParams>) {
    let mut messages = Messages::default();
    let mut chunk = [0; 4096];
    while !messages.has_message() {
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "the client hung up");
        messages.extend(&chunk[..count]);
    }
    let message = messages.next_message().unwrap().unwrap();
    let call = wire::Call::parse(message).unwrap();
    let parameters = call
        .parameters
        .and_then(|raw| serde_json::from_str(raw.get()).ok());
    stream.write_all(reply.as_bytes()).unwrap();
    stream.write_all(b"\0").unwrap();
    (call.method.into_owned(), parameters)
}

const ATTACHED: &str =
    r#"{"parameters":{"id":"c1","tty":false,"stdoutOffset":10,"stderrOffset":20}}"#;

fn frames(stream: &mut UnixStream, frames: &[(Kind, &[u8])]) {
    let mut bytes = Vec::new();
    for (kind, content) in frames {
        frame::encode(*kind, content, &mut bytes);
    }
    stream.write_all(&bytes).unwrap();
}

/// Attaches and pumps; gives how it ended and what was written.
fn attach(
    address: &Address,
    stdin: Option<File>,
    offsets: bool,
) -> (Result<Ending, Error>, String, String) {
    let signals = Rc::new(Signals::block(true).unwrap());
    let (stdout, stderr) = (scratch(), scratch());
    let user = User {
        stdin,
        stdout: stdout.try_clone().unwrap(),
        stderr: stderr.try_clone().unwrap(),
    };
    let connection: Connection = address.connect_with(&signals).unwrap();
    let parameters = AttachParams {
        id: "c1".into(),
        ..AttachParams::default()
    };
    let (reply, stream) = connection
        .upgrade::<_, AttachReply>(methods::ATTACH, &parameters, None)
        .unwrap();
    let session = Session::new(Options {
        address: address.clone(),
        signals,
        target: Target::Container {
            id: reply.id,
            offsets: offsets.then_some([reply.stdout_offset, reply.stderr_offset]),
            stdin: true,
        },
        user,
        tty: false,
        detach_keys: Some(DetachKeys::parse("ctrl-p,ctrl-q").unwrap()),
        proxy: None,
        end_with_reader: false,
    });
    let ending = session.run(stream);
    (ending, content(&stdout), content(&stderr))
}

fn serve<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(act)
}

#[test]
fn output_and_exit_code_arrive() {
    let (_place, listener, address) = Place::new("exit");
    let server = serve(move || {
        let (mut stream, _) = listener.accept().unwrap();
        answer(&mut stream, ATTACHED);
        let long = vec![b'x'; 300_000];
        frames(
            &mut stream,
            &[
                (Kind::Stdout, &long),
                (Kind::Stderr, b"err"),
                (Kind::Stdout, b"y"),
            ],
        );
        frames(&mut stream, &[(Kind::Exit, &7i32.to_be_bytes())]);
    });
    let (ending, stdout, stderr) = attach(&address, None, true);
    server.join().unwrap();
    assert_eq!(ending.unwrap(), Ending::Exit(7));
    assert_eq!((stdout.len(), stderr.as_str()), (300_001, "err"));
    assert!(stdout.ends_with("xy"));
}

#[test]
fn a_broken_stream_is_taken_up_at_its_offsets() {
    let (_place, listener, address) = Place::new("resume");
    let server = serve(move || {
        let (mut stream, _) = listener.accept().unwrap();
        answer(&mut stream, ATTACHED);
        frames(
            &mut stream,
            &[(Kind::Stdout, b"one "), (Kind::Stderr, b"e1")],
        );
        // A frame that was cut does not count.
        stream
            .write_all(&[Kind::Stdout as u8, 0, 0, 0, 0, 0, 0, 4, b't', b'w'])
            .unwrap();
        drop(stream);
        // The next one dies before it answers.
        drop(listener.accept().unwrap());
        let (mut stream, _) = listener.accept().unwrap();
        let call = answer(&mut stream, ATTACHED);
        frames(
            &mut stream,
            &[(Kind::Stdout, b"two "), (Kind::Exit, &0i32.to_be_bytes())],
        );
        call
    });
    let (ending, stdout, stderr) = attach(&address, None, true);
    let (method, parameters) = server.join().unwrap();
    let parameters = parameters.unwrap();
    assert_eq!(method, methods::ATTACH);
    assert!(!parameters.start && parameters.stdin && parameters.stdout && parameters.stderr);
    assert_eq!(
        (parameters.stdout_offset, parameters.stderr_offset),
        (Some(14), Some(22))
    );
    assert_eq!(ending.unwrap(), Ending::Exit(0));
    assert_eq!((stdout.as_str(), stderr.as_str()), ("one two ", "e1"));
}

#[test]
fn a_container_that_is_gone_after_a_restart_is_an_error_that_says_so() {
    let (_place, listener, address) = Place::new("gone");
    let server = serve(move || {
        let (mut stream, _) = listener.accept().unwrap();
        answer(&mut stream, ATTACHED);
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        answer(
            &mut stream,
            r#"{"error":"io.rcd.Container.NoSuchContainer","parameters":{"message":"no","id":"c1"}}"#,
        );
    });
    let (ending, ..) = attach(&address, None, true);
    server.join().unwrap();
    let text = ending.unwrap_err().to_string();
    assert!(
        text.contains("container c1 is gone, so its exit code is unknown"),
        "{text}"
    );
}

#[test]
fn a_part_of_a_log_cannot_be_taken_up() {
    let (_place, listener, address) = Place::new("tail");
    let server = serve(move || {
        let (mut stream, _) = listener.accept().unwrap();
        answer(&mut stream, ATTACHED);
        drop(stream);
        let _ = listener.accept();
    });
    let (ending, ..) = attach(&address, None, false);
    server.join().unwrap();
    assert!(matches!(ending, Err(Error::NotResumed { .. })));
}

#[test]
fn input_arrives_with_its_end() {
    let (_place, listener, address) = Place::new("input");
    let (sender, receiver) = mpsc::channel();
    let server = serve(move || {
        let (mut stream, _) = listener.accept().unwrap();
        answer(&mut stream, ATTACHED);
        let mut decoder = Decoder::default();
        let mut chunk = [0; 4096];
        loop {
            let count = stream.read(&mut chunk).unwrap();
            decoder.extend(&chunk[..count]);
            while let Some((kind, content)) = decoder.next_frame().unwrap() {
                sender.send((kind, content.to_vec())).unwrap();
                if content.is_empty() {
                    frames(&mut stream, &[(Kind::Exit, &0i32.to_be_bytes())]);
                    return;
                }
            }
        }
    });
    let mut input = scratch();
    input.write_all(b"hello\x10").unwrap();
    input.seek(SeekFrom::Start(0)).unwrap();
    let (ending, ..) = attach(&address, Some(input), true);
    server.join().unwrap();
    assert_eq!(ending.unwrap(), Ending::Exit(0));
    let got: Vec<_> = receiver.iter().collect();
    assert!(got.iter().all(|(kind, _)| *kind == Kind::Stdin));
    assert_eq!(got.concat_content(), b"hello\x10");
    assert!(got.last().is_some_and(|(_, content)| content.is_empty()));
}

trait Concat {
    fn concat_content(&self) -> Vec<u8>;
}

impl Concat for Vec<(Kind, Vec<u8>)> {
    fn concat_content(&self) -> Vec<u8> {
        self.iter()
            .flat_map(|(_, content)| content.iter().copied())
            .collect()
    }
}

#[test]
fn detach_keys_end_the_session_and_errors_are_passed_on() {
    let (_place, listener, address) = Place::new("detach");
    let server = serve(move || {
        let (mut stream, _) = listener.accept().unwrap();
        answer(&mut stream, ATTACHED);
        // Held open until the client goes.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let (mut stream, _) = listener.accept().unwrap();
        answer(&mut stream, ATTACHED);
        let error = rcd_proto::Error::Internal {
            message: "boom".into(),
        };
        frames(&mut stream, &[(Kind::Error, error.to_wire().as_bytes())]);
    });
    let mut input = scratch();
    input.write_all(b"ls\x10\x11").unwrap();
    input.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(
        attach(&address, Some(input), true).0.unwrap(),
        Ending::Detached
    );
    let error = attach(&address, None, true).0.unwrap_err();
    server.join().unwrap();
    assert_eq!(error.to_string(), "boom");
}
