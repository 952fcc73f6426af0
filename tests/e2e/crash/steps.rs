//! The operations and the steps that each passes.

use super::{Outcome, checks, place::Place};
use rcd_tests::harness::Verdict;

/// Operations that are walked one after the other in one place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Containers,
    Removals,
    Images,
}

/// An operation. In its commands `@1` and `@2` are two references to one image in the registry, and
/// `@tar` is a file.
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) group: Group,
    /// Where the daemon may die, in order.
    pub(super) steps: &'static [&'static str],
    /// Commands of `rc` that lead up to it.
    pub(super) prepare: &'static [&'static [&'static str]],
    /// The command.
    pub(super) command: &'static [&'static str],
    /// Its exit code if nothing dies.
    pub(super) code: i32,
    /// `wait` and `logs -f` wait for the end of the container meanwhile.
    pub(super) waited_for: bool,
    /// What must hold after the death.
    pub(super) check: fn(&Place, &Outcome) -> Verdict,
}

/// A container that runs until it is killed: a first process is deaf to SIGTERM.
const SLEEPER: &[&str] = &[
    "run",
    "-d",
    "--name",
    "cc",
    "busybox",
    "sh",
    "-c",
    "echo begun; exec sleep 1000",
];
const ENDED: &[&str] = &["run", "--name", "cc", "busybox", "echo", "x"];
const CREATED: &[&str] = &["create", "--name", "cc", "busybox", "sleep", "1000"];
const SCRIPT: &str = "echo out; echo err >&2; exit 7";

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "create",
        group: Group::Containers,
        steps: &[
            "container.staged",
            "create.directories",
            "create.files",
            "container.row",
            "file.staged",
            "create.recorded",
        ],
        prepare: &[],
        command: CREATED,
        code: 0,
        waited_for: false,
        check: checks::created,
    },
    Operation {
        name: "create --rm",
        group: Group::Containers,
        steps: &[
            "create.files",
            "container.config",
            "container.row",
            "create.recorded",
        ],
        prepare: &[],
        command: &["create", "--rm", "--name", "cc", "busybox", "sleep", "1000"],
        code: 0,
        waited_for: false,
        check: checks::created,
    },
    Operation {
        name: "start",
        group: Group::Containers,
        steps: &[
            "start.begun",
            "spawn.prepared",
            "start.spawned",
            "state.recorded",
        ],
        prepare: &[CREATED],
        command: &["start", "cc"],
        code: 0,
        waited_for: false,
        check: checks::running,
    },
    Operation {
        name: "start that fails",
        group: Group::Containers,
        steps: &["start.failed"],
        prepare: &[&["create", "--name", "cc", "busybox", "/none"]],
        command: &["start", "cc"],
        code: 1,
        waited_for: false,
        check: checks::failed_to_start,
    },
    Operation {
        name: "run",
        group: Group::Containers,
        steps: &[
            "start.begun",
            "spawn.prepared",
            "start.spawned",
            "exit.drained",
            "exit.published",
            "state.acknowledged",
        ],
        prepare: &[],
        command: &["run", "--name", "cc", "busybox", "sh", "-c", SCRIPT],
        code: 7,
        waited_for: false,
        check: checks::ran,
    },
    Operation {
        name: "start -a",
        group: Group::Containers,
        steps: &["start.begun", "start.spawned", "exit.published"],
        prepare: &[&["create", "--name", "cc", "busybox", "sh", "-c", SCRIPT]],
        command: &["start", "-a", "cc"],
        code: 7,
        waited_for: false,
        check: checks::ran,
    },
    Operation {
        name: "run --rm",
        group: Group::Containers,
        steps: &[
            "start.begun",
            "start.spawned",
            "exit.drained",
            "exit.published",
            "container.thrown",
            "exit.deleted",
            "exit.forgotten",
        ],
        prepare: &[],
        command: &["run", "--rm", "--name", "cc", "busybox", "sh", "-c", SCRIPT],
        code: 7,
        waited_for: false,
        check: checks::ran_and_removed,
    },
    Operation {
        name: "stop",
        group: Group::Removals,
        steps: &[
            "stop.signalled",
            "stop.escalated",
            "exit.drained",
            "exit.published",
            "state.recorded",
            "state.acknowledged",
        ],
        prepare: &[SLEEPER],
        command: &["stop", "-t", "0", "cc"],
        code: 0,
        waited_for: true,
        check: checks::killed,
    },
    Operation {
        name: "stop of a container with --rm",
        group: Group::Removals,
        steps: &[
            "stop.signalled",
            "exit.drained",
            "exit.published",
            "container.thrown",
            "exit.forgotten",
        ],
        prepare: &[&[
            "run", "-d", "--rm", "--name", "cc", "busybox", "sleep", "1000",
        ]],
        command: &["stop", "-t", "0", "cc"],
        code: 0,
        waited_for: false,
        check: checks::removed,
    },
    Operation {
        name: "kill",
        group: Group::Removals,
        steps: &["kill.signalled", "exit.published"],
        prepare: &[SLEEPER],
        command: &["kill", "cc"],
        code: 0,
        waited_for: true,
        check: checks::killed,
    },
    Operation {
        name: "rm",
        group: Group::Removals,
        steps: &[
            "remove.begun",
            "container.thrown",
            "remove.deleted",
            "trash.found",
        ],
        prepare: &[ENDED],
        command: &["rm", "cc"],
        code: 0,
        waited_for: false,
        check: checks::removed,
    },
    Operation {
        name: "rm -f",
        group: Group::Removals,
        steps: &[
            "remove.killed",
            "exit.drained",
            "exit.published",
            "remove.deleted",
        ],
        prepare: &[SLEEPER],
        command: &["rm", "-f", "cc"],
        code: 0,
        waited_for: false,
        check: checks::removed,
    },
    Operation {
        name: "exec",
        group: Group::Removals,
        steps: &["spawn.prepared", "exec.spawned", "exec.ended"],
        prepare: &[SLEEPER],
        // It lives long enough for its client to have had the answer that names it.
        command: &["exec", "cc", "sh", "-c", "sleep 0.5; exit 5"],
        code: 5,
        waited_for: false,
        check: checks::executed,
    },
    Operation {
        name: "pull",
        group: Group::Images,
        steps: &[
            "layer.staged",
            "layer.described",
            "layer.published",
            "pull.layer",
            "pull.layers",
            "pull.config",
            "pull.blobs",
            "image.adopted",
            "image.written",
            "tag.recorded",
        ],
        prepare: &[],
        command: &["pull", "@1"],
        code: 0,
        waited_for: false,
        check: checks::pulled,
    },
    Operation {
        name: "import",
        group: Group::Images,
        steps: &["import.layer", "import.blobs", "image.written"],
        prepare: &[],
        command: &["import", "@tar", "made:1"],
        code: 0,
        waited_for: false,
        check: checks::imported,
    },
    Operation {
        name: "import of a name that is in use",
        group: Group::Images,
        steps: &["image.written", "tag.recorded"],
        prepare: &[&["import", "@tar", "made:1"]],
        command: &["import", "@tar", "made:1"],
        code: 0,
        waited_for: false,
        check: checks::moved,
    },
    Operation {
        name: "rmi",
        group: Group::Images,
        steps: &[
            "rmi.containers",
            "image.unlinked",
            "rmi.removed",
            "layer.thrown",
            "blob.thrown",
        ],
        prepare: &[&["pull", "@1"], &["create", "--name", "cc", "@1", "true"]],
        command: &["rmi", "-f", "@1"],
        code: 0,
        waited_for: false,
        check: checks::image_removed,
    },
    Operation {
        name: "rmi of one of two names",
        group: Group::Images,
        steps: &["image.written", "rmi.untagged"],
        prepare: &[&["pull", "@1"], &["pull", "@2"]],
        command: &["rmi", "@2"],
        code: 0,
        waited_for: false,
        check: checks::untagged,
    },
];
