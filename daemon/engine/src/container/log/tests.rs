//! A log written and read, resumed, mended after a crash.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::*;

fn fresh() -> (tempfile::TempDir, Arc<Log>) {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(dir.path().join("log"));
    (dir, log)
}

fn pipe() -> (OwnedFd, std::fs::File) {
    let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
    (read, write.into())
}

/// Appends `text` as one piece.
fn append(log: &Log, stream: Stream, text: &[u8]) {
    let (read, mut write) = pipe();
    write.write_all(text).unwrap();
    log.files().unwrap().append(stream, read.as_fd()).unwrap();
    log.announce_append();
}

async fn read_all(log: &Arc<Log>, position: Position) -> String {
    let mut reader = Reader::new(Arc::clone(log), position).await.unwrap();
    let mut text = String::new();
    while let Some(chunk) = reader.next(false).await.unwrap() {
        text.push(if chunk.stream == Stream::Stdout {
            '>'
        } else {
            '!'
        });
        text.push_str(std::str::from_utf8(&chunk.bytes).unwrap());
    }
    text
}

fn sample(log: &Log) {
    append(log, Stream::Stdout, b"one\n");
    append(log, Stream::Stdout, b"two\n");
    append(log, Stream::Stderr, b"bad\n");
    append(log, Stream::Stdout, b"thr");
    append(log, Stream::Stdout, b"ee\nfour");
}

#[tokio::test]
async fn streams_come_back_in_the_order_in_which_they_were_written() {
    let (_dir, log) = fresh();
    sample(&log);
    assert_eq!(
        read_all(&log, Position::Start).await,
        ">one\ntwo\n!bad\n>three\nfour"
    );
    assert_eq!(read_all(&log, Position::End).await, "");
}

#[tokio::test]
async fn a_tail_counts_lines_of_both_streams() {
    let (_dir, log) = fresh();
    sample(&log);
    for (lines, want) in [
        (0, ""),
        (1, ">four"),
        (2, ">three\nfour"),
        (3, "!bad\n>three\nfour"),
        (4, ">two\n!bad\n>three\nfour"),
        (5, ">one\ntwo\n!bad\n>three\nfour"),
        (99, ">one\ntwo\n!bad\n>three\nfour"),
    ] {
        assert_eq!(
            read_all(&log, Position::Tail(lines)).await,
            want,
            "tail {lines}"
        );
    }
}

#[tokio::test]
async fn a_reader_resumes_at_any_pair_of_offsets() {
    let (_dir, log) = fresh();
    sample(&log);
    for (stdout, stderr, want) in [
        (0, 0, ">one\ntwo\n!bad\n>three\nfour"),
        (2, 0, ">e\ntwo\n!bad\n>three\nfour"),
        (8, 4, ">three\nfour"),
        (10, 2, "!d\n>ree\nfour"),
        (18, 4, ""),
        (18, 0, "!bad\n"),
    ] {
        let position = Position::Offsets(stdout, stderr);
        assert_eq!(
            read_all(&log, position).await,
            want,
            "from {stdout}, {stderr}"
        );
    }
}

#[tokio::test]
async fn bytes_that_a_crash_left_without_a_record_get_one() {
    let (dir, log) = fresh();
    sample(&log);
    let path = dir.path().join("log");
    let mut data = std::fs::OpenOptions::new()
        .append(true)
        .open(path.join("stderr"))
        .unwrap();
    data.write_all(b"lost?").unwrap();
    let mut index = std::fs::OpenOptions::new()
        .append(true)
        .open(path.join("index"))
        .unwrap();
    index.write_all(&[7; 5]).unwrap();

    let successor = Log::new(path);
    let all = ">one\ntwo\n!bad\n>three\nfour!lost?";
    assert_eq!(read_all(&successor, Position::Start).await, all);
    append(&successor, Stream::Stdout, b"+");
    assert_eq!(
        read_all(&successor, Position::Start).await,
        format!("{all}>+")
    );
}

#[tokio::test]
async fn a_log_without_output_has_no_files_and_reads_as_empty() {
    let (dir, log) = fresh();
    assert_eq!(read_all(&log, Position::Start).await, "");
    assert_eq!(read_all(&log, Position::Tail(3)).await, "");
    assert!(!dir.path().join("log").exists());
}

#[tokio::test]
async fn a_follower_sees_what_comes_and_ends_with_the_run() {
    let (_dir, log) = fresh();
    log.set_live(true);
    let (stdout, mut out) = pipe();
    let (stderr, err) = pipe();
    let pumping = tokio::spawn(pump(Arc::clone(&log), Sources::Pipes { stdout, stderr }));
    let mut reader = Reader::of_new_log(Arc::clone(&log));
    for number in 0..50 {
        let line = format!("line {number}\n");
        out.write_all(line.as_bytes()).unwrap();
        let chunk = reader.next(true).await.unwrap().unwrap();
        assert_eq!(chunk.bytes, line.as_bytes());
    }
    drop((out, err));
    pumping.await.unwrap().unwrap();
    log.set_live(false);
    assert_eq!(reader.next(true).await.unwrap(), None);
}

#[tokio::test]
async fn output_larger_than_a_chunk_is_neither_lost_nor_doubled() {
    let (_dir, log) = fresh();
    log.set_live(true);
    let (stdout, mut out) = pipe2(OFlag::O_CLOEXEC)
        .map(|(r, w)| (r, std::fs::File::from(w)))
        .unwrap();
    nix::fcntl::fcntl(&stdout, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let (stderr, err) = pipe();
    let pumping = tokio::spawn(pump(Arc::clone(&log), Sources::Pipes { stdout, stderr }));
    let data: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 251) as u8).collect();
    let written = data.clone();
    let writer = std::thread::spawn(move || out.write_all(&written).unwrap());
    let mut reader = Reader::new(Arc::clone(&log), Position::Start)
        .await
        .unwrap();
    let mut read = Vec::new();
    while read.len() < data.len() {
        read.extend_from_slice(&reader.next(true).await.unwrap().unwrap().bytes);
    }
    writer.join().unwrap();
    drop(err);
    pumping.await.unwrap().unwrap();
    assert!(read == data);
}

#[tokio::test]
async fn an_old_log_is_shortened_from_its_beginning_and_keeps_its_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        stream_bytes: 64 << 10,
        stream_bytes_step: 16 << 10,
        records: 40,
        records_step: 8,
    };
    let path = dir.path().join("log");
    let log = Log::with_limits(path.clone(), limits);
    append(&log, Stream::Stderr, b"an early word");
    let page = |number: u8| vec![b'a' + number % 26; 4096];
    for number in 0..40_u8 {
        append(&log, Stream::Stdout, &page(number));
    }
    let expected: Vec<u8> = (24..40).flat_map(page).collect();
    let successor = Log::with_limits(path, limits);
    for log in [&log, &successor] {
        let mut reader = Reader::new(Arc::clone(log), Position::Start).await.unwrap();
        let mut read = Vec::new();
        while let Some(chunk) = reader.next(false).await.unwrap() {
            if chunk.stream == Stream::Stdout {
                read.extend_from_slice(&chunk.bytes);
            }
        }
        assert!(read == expected, "{} bytes", read.len());
        assert_eq!(reader.offsets(), (40 * 4096, 13));
    }
    let kept = std::os::unix::fs::MetadataExt::blocks(
        &std::fs::metadata(dir.path().join("log/stdout")).unwrap(),
    );
    assert!(kept * 512 <= 96 << 10, "{kept} blocks");

    // Every record of stderr is gone now; what it wrote must not come back as new.
    for _ in 0..60 {
        append(&successor, Stream::Stdout, b"x");
    }
    let third = Log::with_limits(dir.path().join("log"), limits);
    assert!(!read_all(&third, Position::Start).await.contains('!'));
}
