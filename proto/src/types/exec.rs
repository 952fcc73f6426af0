//! `io.rcd.Exec`.

use serde::{Deserialize, Serialize};

/// What to run in a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecConfig {
    /// Which container.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `KEY=value`, added to the container's.
    pub env: Vec<String>,
    /// Working directory; the container's if absent.
    pub working_dir: Option<String>,
    /// User; the container's if absent.
    pub user: Option<String>,
    /// Allocate a terminal.
    pub tty: bool,
    /// Feed stdin from Stdin frames.
    pub stdin: bool,
    /// Size of the terminal.
    pub rows: Option<i64>,
    /// See rows.
    pub columns: Option<i64>,
}

/// `Run` and `Start` parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecParams {
    /// What to run.
    pub config: ExecConfig,
}

/// `Run` (then upgraded: frames, ended by Exit) and `Start` (detached) reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecReply {
    /// Exec id.
    pub id: String,
}

/// `Attach` parameters: take a running exec's stream up again. Upgraded like `Run`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecId {
    /// Exec id.
    pub id: String,
}
