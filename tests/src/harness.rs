//! Runs registered tests, some at a time, and counts them.
//!
//! A test is a function that panics (or fails with an [`Error`]) when it fails, and
//! calls [`skip`] when the machine lacks what it needs. The last line of a run is
//! `N passed, N failed, N skipped`.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::Write as _,
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use crate::{Environment, error::Error};

/// What a test yields.
pub type Verdict = Result<(), Error>;

/// One test.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// `module::behaviour`.
    pub name: &'static str,
    /// Runs only with `--long`.
    pub long: bool,
    /// The test.
    pub run: fn(&Environment) -> Verdict,
}

/// Outcome of a whole run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that could not run here.
    pub skipped: usize,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// The closing line.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// Payload of the panic that [`skip`] ends a test with.
struct Skipped(String);

/// Ends the test that calls it as skipped.
pub fn skip(reason: impl Into<String>) -> ! {
    panic::resume_unwind(Box::new(Skipped(reason.into())))
}

/// Writes a line of a test's output, whole even beside other tests.
pub fn note(line: &str) {
    writeln!(std::io::stderr().lock(), "    {line}").ok();
}

/// Runs the tests whose names contain `filter`, `jobs` at a time.
#[must_use]
pub fn run(
    environment: &Environment,
    tests: &[Test],
    filter: Option<&str>,
    long: bool,
    jobs: usize,
) -> Tally {
    let wanted = |test: &&Test| {
        (long || !test.long || filter == Some(test.name))
            && filter.is_none_or(|text| test.name.contains(text))
    };
    let queue: Mutex<VecDeque<Test>> = Mutex::new(tests.iter().filter(wanted).copied().collect());
    let tally = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    let Some(test) = next else { break };
                    let one = run_one(environment, test);
                    tally
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(&one);
                }
            });
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn run_one(environment: &Environment, test: Test) -> Tally {
    let begun = Instant::now();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (test.run)(environment)));
    let mut text = format!("test {} ... ", test.name);
    let mut tally = Tally::default();
    match outcome {
        Ok(Ok(())) => {
            tally.passed = 1;
            text.push_str("ok");
        }
        Ok(Err(error)) => {
            tally.failed = 1;
            write!(text, "FAILED\n{}", indent(&error.chain())).ok();
        }
        Err(payload) => match payload.downcast::<Skipped>() {
            Ok(skipped) => {
                tally.skipped = 1;
                write!(text, "skipped: {}", skipped.0).ok();
            }
            // The panic's message and place were printed by the hook.
            Err(_) => {
                tally.failed = 1;
                text.push_str("FAILED");
            }
        },
    }
    writeln!(
        std::io::stdout().lock(),
        "{text} ({:.1} s)",
        begun.elapsed().as_secs_f32()
    )
    .ok();
    tally
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|line| format!("    {line}\n"))
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// Counts of one run of libtest, from its `test result:` line.
#[must_use]
pub fn libtest_tally(output: &str) -> Option<Tally> {
    let line = output
        .lines()
        .rev()
        .find(|line| line.starts_with("test result:"))?;
    let count = |word: &str| {
        let before = line.split(word).next()?.trim_end();
        before
            .rsplit(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    let (passed, failed) = (count(" passed")?, count(" failed")?);
    Some(Tally {
        passed,
        failed,
        skipped: count(" ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Tally, libtest_tally};

    #[test]
    fn reads_what_libtest_prints() {
        let output = "\ntest a ... ok\n\ntest result: FAILED. 12 passed; 3 failed; 1 ignored; \
                      0 measured; 0 filtered out; finished in 0.00s\n\n";
        let tally = Tally {
            passed: 12,
            failed: 3,
            skipped: 1,
        };
        assert_eq!(libtest_tally(output), Some(tally));
        assert_eq!(libtest_tally("killed before its end"), None);
    }
}
