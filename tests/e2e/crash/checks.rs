//! What must hold after a death, operation by operation.

use std::collections::BTreeMap;

use rcd_tests::{Daemon, harness::Verdict};

use super::{Outcome, known, place::Place, steps::Operation};
use crate::support::{inspect, status};

/// Fails unless the command ended with this code.
#[track_caller]
fn ended_with(outcome: &Outcome, code: i32) {
    let Outcome { stdout, stderr, .. } = outcome;
    assert_eq!(outcome.code, code, "at {}: {stdout}{stderr}", outcome.step);
}

/// Fails unless the command says that it does not know how it ended.
#[track_caller]
fn ended_in_doubt(outcome: &Outcome) {
    let Outcome {
        step, code, stderr, ..
    } = outcome;
    assert_ne!(*code, 0, "at {step}");
    assert!(stderr.contains("rcd"), "at {step}: {stderr}");
}

pub(super) fn created(place: &Place, outcome: &Outcome) -> Verdict {
    if outcome.code != 0 {
        ended_in_doubt(outcome);
    }
    if !known(place, "cc")? {
        assert_ne!(
            outcome.code, 0,
            "at {}: acknowledged, and gone",
            outcome.step
        );
        return Ok(());
    }
    assert_eq!(status(&place.rcd, "cc")?, "created", "at {}", outcome.step);
    place.rcd.rc_ok(&["start", "cc"])?;
    assert_eq!(status(&place.rcd, "cc")?, "running", "at {}", outcome.step);
    Ok(())
}

pub(super) fn running(place: &Place, outcome: &Outcome) -> Verdict {
    ended_with(outcome, 0);
    assert_eq!(status(&place.rcd, "cc")?, "running", "at {}", outcome.step);
    assert_eq!(place.rcd.rc_ok(&["exec", "cc", "echo", "on"])?, "on");
    Ok(())
}

pub(super) fn failed_to_start(place: &Place, outcome: &Outcome) -> Verdict {
    ended_with(outcome, 1);
    assert_ne!(status(&place.rcd, "cc")?, "running");
    Ok(())
}

pub(super) fn ran(place: &Place, outcome: &Outcome) -> Verdict {
    ended_with(outcome, 7);
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("out\n", "err\n"));
    let state = inspect(&place.rcd, "cc")?["State"].clone();
    assert_eq!(state["Status"], "exited", "{state}");
    assert_eq!(state["ExitCode"], 7, "{state}");
    let logs = place.rcd.rc(&["logs", "cc"]);
    assert_eq!((&*logs.stdout, &*logs.stderr), ("out\n", "err\n"));
    Ok(())
}

pub(super) fn ran_and_removed(place: &Place, outcome: &Outcome) -> Verdict {
    // Once its files are gone, nobody can tell how it ended: whoever was not told before is told so.
    let told = matches!(
        outcome.step,
        "container.thrown" | "exit.deleted" | "exit.forgotten"
    );
    if outcome.code == 125 && told {
        assert!(
            outcome.stderr.contains("exit code is unknown"),
            "{}",
            outcome.stderr
        );
    } else {
        ended_with(outcome, 7);
        assert_eq!((&*outcome.stdout, &*outcome.stderr), ("out\n", "err\n"));
    }
    assert!(!known(place, "cc")?, "at {}: not removed", outcome.step);
    Ok(())
}

pub(super) fn killed(place: &Place, outcome: &Outcome) -> Verdict {
    ended_with(outcome, 0);
    let state = inspect(&place.rcd, "cc")?["State"].clone();
    assert_eq!(state["Status"], "exited", "{state}");
    assert_eq!(state["ExitCode"], 137, "{state}");
    assert_eq!(place.rcd.rc_ok(&["logs", "cc"])?, "begun");
    Ok(())
}

/// `rc wait` and `rc logs -f` that were there all the time; the first line was taken already.
pub(super) fn waiting_clients(wait: (i32, String, String), logs: (i32, String, String)) {
    assert_eq!((wait.0, &*wait.1), (0, "137\n"), "wait: {}", wait.2);
    assert_eq!((logs.0, &*logs.1), (0, ""), "logs -f: {}", logs.2);
}

pub(super) fn removed(place: &Place, outcome: &Outcome) -> Verdict {
    ended_with(outcome, 0);
    assert!(!known(place, "cc")?, "at {}: not removed", outcome.step);
    Ok(())
}

pub(super) fn executed(place: &Place, outcome: &Outcome) -> Verdict {
    match outcome.step {
        "exec.ended" => ended_with(outcome, 5),
        _ => ended_in_doubt(outcome),
    }
    assert_eq!(status(&place.rcd, "cc")?, "running");
    assert_eq!(place.rcd.rc_ok(&["exec", "cc", "echo", "on"])?, "on");
    Ok(())
}

// ---- images ----

/// Every layer that was there is there, and the same: a pull or an import fetches none again.
pub(super) fn kept(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    operation: &Operation,
) {
    if operation.command.first() == Some(&"rmi") {
        return;
    }
    for (layer, inode) in before {
        assert_eq!(after.get(layer), Some(inode), "{}: {layer}", operation.name);
    }
}

pub(super) fn pulled(place: &Place, outcome: &Outcome) -> Verdict {
    let reference = &place.references[0];
    if known(place, reference)? {
        assert_eq!(
            place
                .rcd
                .rc_ok(&["run", "--rm", reference, "echo", "whole"])?,
            "whole"
        );
    } else {
        ended_in_doubt(outcome);
    }
    let finished = place.layers();
    let at_least = match outcome.step {
        "layer.staged" | "layer.described" => 0,
        "layer.published" | "pull.layer" => 1,
        _ => place.image_layers,
    };
    // One layer is busybox's own.
    assert!(
        finished.len() > at_least,
        "at {}: {finished:?}",
        outcome.step
    );
    place.rcd.rc_ok(&["pull", reference])?;
    for (layer, inode) in finished {
        assert_eq!(place.layers().get(&layer), Some(&inode), "fetched again");
    }
    assert_eq!(
        place
            .rcd
            .rc_ok(&["run", "--rm", reference, "echo", "whole"])?,
        "whole"
    );
    Ok(())
}

pub(super) fn imported(place: &Place, outcome: &Outcome) -> Verdict {
    if known(place, "made:1")? {
        assert_eq!(
            place
                .rcd
                .rc_ok(&["run", "--rm", "made:1", "echo", "whole"])?,
            "whole"
        );
    } else {
        ended_in_doubt(outcome);
    }
    Ok(())
}

pub(super) fn moved(place: &Place, outcome: &Outcome) -> Verdict {
    let format = "{{.Repository}}:{{.Tag}}";
    let all = place.rcd.rc_ok(&["images", "--format", format])?;
    let named = all.lines().filter(|line| *line == "made:1").count();
    assert_eq!(named, 1, "at {}: {all}", outcome.step);
    assert_eq!(
        all.lines().count(),
        3,
        "busybox, the old and the new one: {all}"
    );
    assert_eq!(
        place
            .rcd
            .rc_ok(&["run", "--rm", "made:1", "echo", "whole"])?,
        "whole"
    );
    Ok(())
}

pub(super) fn image_removed(place: &Place, outcome: &Outcome) -> Verdict {
    let reference = &place.references[0];
    if known(place, reference)? {
        ended_in_doubt(outcome);
        assert_eq!(
            place
                .rcd
                .rc_ok(&["run", "--rm", reference, "echo", "whole"])?,
            "whole"
        );
    }
    assert!(!known(place, "cc")?, "its container goes first");
    Ok(())
}

pub(super) fn untagged(place: &Place, outcome: &Outcome) -> Verdict {
    let [first, second] = &place.references;
    assert!(known(place, first)?, "at {}", outcome.step);
    if known(place, second)? {
        ended_in_doubt(outcome);
    }
    assert_eq!(
        place.rcd.rc_ok(&["run", "--rm", first, "echo", "whole"])?,
        "whole"
    );
    Ok(())
}
