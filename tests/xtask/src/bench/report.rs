//! What was measured, as a table and as JSON.

use std::{fs, thread};

use serde_json::{Value, json};

use super::sample::Series;

/// The same work done by rcd and by somebody else, or by rcd under other circumstances.
pub(super) struct Row {
    pub(super) work: String,
    pub(super) rcd: Series,
    pub(super) peer: &'static str,
    pub(super) other: Series,
    /// What the other's median by rcd's shall be at least; none for rows that explain others.
    pub(super) goal: Option<f64>,
    pub(super) note: String,
}

/// A single number of rcd.
pub(super) struct Fact {
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// What it shall be at most; none for numbers to compare with.
    pub(super) goal: Option<f64>,
}

/// Everything that a run found out.
#[derive(Default)]
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    pub(super) facts: Vec<Fact>,
    /// In what crun's container differs from rcd's.
    pub(super) differences: Vec<String>,
    pub(super) versions: Value,
    /// Load averages over one minute, before and after.
    pub(super) load: [f64; 2],
}

impl Row {
    fn ratio(&self) -> f64 {
        self.other.median() / self.rcd.median()
    }

    fn met(&self) -> Option<bool> {
        self.goal.map(|goal| self.ratio() >= goal)
    }
}

impl Fact {
    fn met(&self) -> Option<bool> {
        self.goal.map(|goal| self.value <= goal)
    }
}

impl Report {
    pub(super) fn fact(&mut self, what: &str, value: f64, unit: &'static str, goal: Option<f64>) {
        let what = what.to_owned();
        self.facts.push(Fact {
            what,
            value,
            unit,
            goal,
        });
    }

    pub(super) fn print(&self) {
        println!(
            "\n{:36} {:>8} {:>8}  {:10} {:>8} {:>8} {:>7} {:>7}",
            "times in ms", "rcd", "p95", "beside", "median", "p95", "ratio", "goal"
        );
        for row in &self.rows {
            let goal = row.goal.map(|goal| format!("{goal:.2}x"));
            println!(
                "{:36} {:>8.1} {:>8.1}  {:10} {:>8.1} {:>8.1} {:>6.2}x {:>7}  {}{}",
                row.work,
                row.rcd.median(),
                row.rcd.p95(),
                row.peer,
                row.other.median(),
                row.other.p95(),
                row.ratio(),
                goal.unwrap_or_default(),
                verdict(row.met()),
                note(&row.note)
            );
        }
        println!();
        for fact in &self.facts {
            let goal = fact.goal.map(|goal| format!("at most {goal:.0}"));
            println!(
                "{:52} {:>8.1} {:9} {:>13}  {}",
                fact.what,
                fact.value,
                fact.unit,
                goal.unwrap_or_default(),
                verdict(fact.met())
            );
        }
        println!(
            "\nThe ratio is the median beside by rcd's; a goal is met from it upwards. crun runs a bundle of the\n\
             spec that rcd uses: capabilities, seccomp, mounts, namespaces, id maps. In its favour: a plain\n\
             directory as `/` where rcd mounts an overlay, no record, no log. Against it: it makes the user\n\
             namespace and compiles the seccomp profile in every run, which rcd does once; the row without\n\
             seccomp shows how much of its time that compilation is."
        );
        if self.differences.is_empty() {
            println!("Seen from inside, both containers are set up alike.");
        }
        for line in &self.differences {
            println!("crun's container differs: {line}");
        }
        let [before, after] = self.load;
        println!("load average: {before:.2} before, {after:.2} after");
    }

    pub(super) fn json(&self, runs: usize) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({"work": row.work, "rcd": row.rcd.json(), "peer": row.peer,
                    "other": row.other.json(), "ratio": row.ratio(), "goal": row.goal,
                    "met": row.met(), "note": row.note})
            })
            .collect();
        let facts: Vec<Value> = self
            .facts
            .iter()
            .map(|fact| {
                json!({"what": fact.what, "value": fact.value, "unit": fact.unit,
                    "goal": fact.goal, "met": fact.met()})
            })
            .collect();
        json!({"machine": machine(), "versions": self.versions, "runs": runs, "rows": rows,
            "facts": facts, "differences": self.differences,
            "loadAverage": {"before": self.load[0], "after": self.load[1]}})
    }
}

fn verdict(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    }
}

fn note(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!("\n    {text}"),
    }
}

/// The load average over one minute.
pub(super) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_once(':'));
        value
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let release = read("/proc/sys/kernel/osrelease");
    let kernel: Vec<&str> = release.trim().split(['.', '-']).take(2).collect();
    json!({
        "cpu": value(&read("/proc/cpuinfo"), "model name"),
        "cores": thread::available_parallelism().map_or(0, usize::from),
        "memory": value(&read("/proc/meminfo"), "MemTotal"),
        "kernel": kernel.join("."),
    })
}
