//! Samples: whole client processes, from the start of the first to the end of the last.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use rcd_tests::{Error, Result};
use serde_json::{Value, json};

/// Rounds whose times are thrown away: caches fill, pools grow.
const WARM_UP_ROUNDS: usize = 2;

/// Times of one kind of work in milliseconds, sorted.
#[derive(Debug, Clone, Default)]
pub(super) struct Series(Vec<f64>);

impl Series {
    pub(super) fn push(&mut self, time_ms: f64) {
        let place = self.0.partition_point(|other| *other < time_ms);
        self.0.insert(place, time_ms);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub(super) fn p95(&self) -> f64 {
        self.quantile(0.95)
    }

    pub(super) fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    pub(super) fn json(&self) -> Value {
        json!({"samples": self.len(), "medianMs": self.median(), "p95Ms": self.p95(),
            "minMs": self.quantile(0.0), "maxMs": self.max()})
    }

    /// The smallest sample that at least this share of all does not exceed.
    fn quantile(&self, share: f64) -> f64 {
        let wanted = (1..self.len()).find(|rank| *rank as f64 >= share * self.len() as f64);
        let rank = wanted.unwrap_or(self.len());
        self.0
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    }
}

/// Starts all commands, waits for all; milliseconds. All have to succeed.
pub(super) fn once(commands: &mut [Command]) -> Result<f64> {
    let begun = Instant::now();
    let mut children = Vec::with_capacity(commands.len());
    for command in commands {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        children.push(command.spawn().map_err(Error::io("start a client"))?);
    }
    let mut failed = None;
    for child in children {
        let output = child
            .wait_with_output()
            .map_err(Error::io("wait for a client"))?;
        if !output.status.success() {
            failed = Some(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    let time = begun.elapsed().as_secs_f64() * 1e3;
    match failed {
        None => Ok(time),
        Some(text) => Err(Error::Missing(format!("a measured command failed: {text}"))),
    }
}

/// Measures several kinds of work in turns, so that what drifts on the machine hits all alike.
pub(super) fn in_turns<const KINDS: usize>(
    runs: usize,
    kinds: [&dyn Fn() -> Vec<Command>; KINDS],
) -> Result<[Series; KINDS]> {
    let mut times = [const { Series(Vec::new()) }; KINDS];
    for round in 0..runs + WARM_UP_ROUNDS {
        for (make, times) in kinds.iter().zip(&mut times) {
            let time = once(&mut make())?;
            if round >= WARM_UP_ROUNDS {
                times.push(time);
            }
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::Series;

    #[test]
    fn quantiles_are_samples() {
        let mut series = Series::default();
        for time in (1..=20).rev() {
            series.push(f64::from(time));
        }
        assert_eq!((series.median(), series.p95()), (10.0, 19.0));
        assert_eq!((series.quantile(0.0), series.max()), (1.0, 20.0));
        let mut one = Series::default();
        one.push(7.0);
        assert_eq!((one.median(), one.p95()), (7.0, 7.0));
        assert!(Series::default().median().is_nan());
    }
}
