//! `io.rcd.Exec`.

types! {
    /// What to run in a running container.
    #[derive(Default)]
    pub struct ExecConfig {
        /// Which container.
        pub container: String,
        /// Program and arguments.
        pub command: Vec<String>,
        /// `KEY=value`, added to the container's.
        #[serde(default)]
        pub env: Vec<String>,
        /// Working directory; the container's if absent.
        pub working_dir: Option<String>,
        /// User; the container's if absent.
        pub user: Option<String>,
        /// Allocate a terminal.
        #[serde(default)]
        pub tty: bool,
        /// Feed stdin from Stdin frames.
        #[serde(default)]
        pub stdin: bool,
        /// Size of the terminal.
        pub rows: Option<i64>,
        /// See rows.
        pub columns: Option<i64>,
    }

    /// `Run` and `Start` parameters.
    #[derive(Default)]
    pub struct ExecParams {
        /// What to run.
        pub config: ExecConfig,
    }

    /// `Run` (then upgraded: frames, ended by Exit) and `Start` (detached) reply.
    pub struct ExecReply {
        /// Exec id.
        pub id: String,
    }

    /// `Attach` parameters: take a running exec's stream up again. Upgraded like `Run`.
    #[derive(Default)]
    pub struct ExecId {
        /// Exec id.
        pub id: String,
    }
}
