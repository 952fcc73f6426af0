//! Work that goes on beside measured starts, and the proof that it did.
//!
//! A load runs in blocks: started before a block of samples, stopped and synced after it, so that
//! quiet samples in between see the same machine. Each sample asks before and after it whether the
//! load moved; a sample beside a load that stood still is kept, because the slowest ones may be among
//! them, and counted.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rcd_tests::{
    Error, Result,
    command::{check, until},
};

use super::sample::{Series, once};

/// Samples of each kind in one block.
const BLOCK_SAMPLES: usize = 5;
/// Pause between samples beside a load: they are to meet it at different moments.
const PAUSE_MS: u64 = 20;
/// Bytes that the writer keeps dirtying: the whole of its file.
const DIRTY_BYTES: u64 = 500 << 20;
/// One write of the writer.
const CHUNK_BYTES: usize = 1 << 20;
/// A load that has not begun by then never will.
const BEGIN_S: u64 = 60;

/// Something that keeps the machine busy.
pub(super) trait Load {
    /// Begins, and returns when it is under way.
    fn start(&mut self) -> Result<()>;
    /// Ends, and leaves nothing to be written.
    fn stop(&mut self) -> Result<()>;
    /// Waits until a sample may begin; yields a mark of the load's progress.
    fn mark(&self) -> Result<u64>;
    /// Whether it still worked at the end of the sample that began at `mark`.
    fn worked_since(&self, mark: u64) -> bool;
    /// What it did altogether, for the table.
    fn summary(&self) -> String;
}

/// Times of two candidates without and with a load.
#[derive(Default)]
pub(super) struct Beside {
    pub(super) quiet: [Series; 2],
    pub(super) busy: [Series; 2],
    /// Samples of the first candidate during which the load stood still or ended.
    pub(super) idle: usize,
}

/// Measures two candidates in turns, in blocks without and with a load.
pub(super) fn beside(
    load: &mut dyn Load,
    runs: usize,
    candidates: [&dyn Fn() -> Command; 2],
) -> Result<Beside> {
    let mut times = Beside::default();
    for _ in 0..runs.div_ceil(BLOCK_SAMPLES) {
        for _ in 0..BLOCK_SAMPLES {
            for (make, times) in candidates.iter().zip(&mut times.quiet) {
                pause();
                times.push(once(&mut [make()])?);
            }
        }
        load.start()?;
        for _ in 0..BLOCK_SAMPLES {
            for (number, make) in candidates.iter().enumerate() {
                pause();
                let mark = load.mark()?;
                times.busy[number].push(once(&mut [make()])?);
                times.idle += usize::from(number == 0 && !load.worked_since(mark));
            }
        }
        load.stop()?;
    }
    Ok(times)
}

fn pause() {
    thread::sleep(Duration::from_millis(PAUSE_MS));
}

/// Writes a new file, goes on writing it round and round, while a second thread has what is dirty
/// written out.
pub(super) struct Writer {
    path: PathBuf,
    dirtied: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
    /// What the kernel wrote out while samples were taken, all files together.
    written_out_bytes: u64,
    written_before: u64,
}

impl Writer {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            path: folder.join("dirty"),
            dirtied: Arc::default(),
            end: Arc::default(),
            threads: Vec::new(),
            written_out_bytes: 0,
            written_before: 0,
        }
    }
}

impl Load for Writer {
    fn start(&mut self) -> Result<()> {
        let open = || {
            let mut options = fs::OpenOptions::new();
            let file = options.create(true).truncate(false).write(true);
            file.open(&self.path)
                .map_err(Error::io("open the written file"))
        };
        let (mut file, synced) = (open()?, open()?);
        self.end.store(false, Ordering::Relaxed);
        let before = self.dirtied.load(Ordering::Relaxed);
        self.written_before = written_out_bytes();
        let (end, dirtied) = (Arc::clone(&self.end), Arc::clone(&self.dirtied));
        self.threads.push(thread::spawn(move || {
            let chunk = vec![0x5a; CHUNK_BYTES];
            while !end.load(Ordering::Relaxed) {
                if file.stream_position()? >= DIRTY_BYTES {
                    file.seek(SeekFrom::Start(0))?;
                }
                file.write_all(&chunk)?;
                dirtied.fetch_add(CHUNK_BYTES as u64, Ordering::Relaxed);
            }
            Ok(())
        }));
        // Sampling begins when the file is dirty as a whole, and the writing out begins with it.
        until(BEGIN_S, "500 MB of dirty pages", || {
            (self.dirtied.load(Ordering::Relaxed) - before >= DIRTY_BYTES).then_some(())
        })?;
        let end = Arc::clone(&self.end);
        self.threads.push(thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                synced.sync_data()?;
            }
            synced.sync_data()
        }));
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.end.store(true, Ordering::Relaxed);
        self.written_out_bytes += written_out_bytes() - self.written_before;
        for thread in self.threads.drain(..) {
            let outcome = thread
                .join()
                .map_err(|_| Error::Missing("a writer died".into()))?;
            outcome.map_err(Error::io("write beside samples"))?;
        }
        // The next block allocates its blocks anew, as whoever writes a new file does.
        fs::remove_file(&self.path).ok();
        Ok(())
    }

    fn mark(&self) -> Result<u64> {
        Ok(self.dirtied.load(Ordering::Relaxed))
    }

    fn worked_since(&self, mark: u64) -> bool {
        self.dirtied.load(Ordering::Relaxed) > mark
    }

    fn summary(&self) -> String {
        let dirtied = self.dirtied.load(Ordering::Relaxed) >> 20;
        let out = self.written_out_bytes >> 20;
        format!("{dirtied} MiB dirtied, {out} MiB written out")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop().ok();
    }
}

/// Bytes that the kernel has written out of its page cache since boot (`nr_written`, pages).
fn written_out_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let pages = text
        .lines()
        .find_map(|line| line.strip_prefix("nr_written "));
    pages
        .and_then(|pages| pages.trim().parse::<u64>().ok())
        .unwrap_or(0)
        * PAGE_BYTES
}

/// Pulls an image and removes it again, round and round.
pub(super) struct Puller {
    make: Box<dyn Fn(&str) -> Command>,
    folder: PathBuf,
    state: Arc<Pulls>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// Odd while a pull is under way; half of it is how many there were.
#[derive(Default)]
struct Pulls {
    count: AtomicU64,
    end: AtomicBool,
    failed: AtomicBool,
}

impl Pulls {
    fn go_round(&self, pull: &mut Command, remove: &mut Command) -> Result<()> {
        while !self.end.load(Ordering::Relaxed) {
            self.count.fetch_add(1, Ordering::SeqCst);
            let pulled = check(pull);
            self.count.fetch_add(1, Ordering::SeqCst);
            pulled?;
            check(remove)?;
        }
        Ok(())
    }
}

impl Puller {
    /// `make` yields the commands `pull` and `rmi`; they write below `folder`.
    pub(super) fn new(folder: &Path, make: impl Fn(&str) -> Command + 'static) -> Self {
        Self {
            make: Box::new(make),
            folder: folder.to_owned(),
            state: Arc::default(),
            thread: None,
        }
    }
}

impl Load for Puller {
    fn start(&mut self) -> Result<()> {
        let (mut pull, mut remove) = ((self.make)("pull"), (self.make)("rmi"));
        let state = Arc::clone(&self.state);
        state.end.store(false, Ordering::Relaxed);
        self.thread = Some(thread::spawn(move || {
            let outcome = state.go_round(&mut pull, &mut remove);
            state.failed.store(outcome.is_err(), Ordering::Relaxed);
            outcome
        }));
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.state.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let outcome = thread
                .join()
                .map_err(|_| Error::Missing("the puller died".into()))?;
            outcome?;
            check(Command::new("sync").arg("-f").arg(&self.folder))?;
        }
        Ok(())
    }

    fn mark(&self) -> Result<u64> {
        until(BEGIN_S, "a pull under way", || {
            let count = self.state.count.load(Ordering::SeqCst);
            let ready = count % 2 == 1 || self.state.failed.load(Ordering::Relaxed);
            ready.then_some(count)
        })
    }

    fn worked_since(&self, mark: u64) -> bool {
        self.state.count.load(Ordering::SeqCst) == mark
    }

    fn summary(&self) -> String {
        format!("{} pulls", self.state.count.load(Ordering::SeqCst) / 2)
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        self.stop().ok();
    }
}
