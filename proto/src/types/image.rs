//! `io.rcd.Image`.

use std::collections::BTreeMap;

types! {
    /// A line of `List`.
    pub struct ImageSummary {
        /// Digest of the image's configuration, `sha256:…`.
        pub id: String,
        /// References (`registry/repository:tag`) that name it; may be empty.
        pub references: Vec<String>,
        /// Digest of the manifest it came with.
        pub manifest_digest: Option<String>,
        /// When it was built.
        pub created_at_ns: i64,
        /// Bytes of its layers, unpacked.
        pub size_bytes: i64,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Containers that use it.
        pub containers: i64,
    }

    /// `List` reply.
    pub struct ImageListReply {
        /// Newest first.
        pub images: Vec<ImageSummary>,
    }

    /// `Inspect` parameters.
    #[derive(Default)]
    pub struct ImageName {
        /// Reference, id or prefix of an id.
        pub reference: String,
    }

    /// Everything about an image.
    pub struct ImageDetail {
        /// What List says.
        pub summary: ImageSummary,
        /// `os/architecture[/variant]`.
        pub platform: String,
        /// Author, if the image names one.
        pub author: Option<String>,
        /// Uncompressed layer digests, lowest first.
        pub diff_ids: Vec<String>,
        /// Entry point.
        pub entrypoint: Vec<String>,
        /// Command.
        pub command: Vec<String>,
        /// Environment.
        pub env: Vec<String>,
        /// Working directory.
        pub working_dir: String,
        /// User.
        pub user: String,
        /// Exposed ports, e.g. `80/tcp`.
        pub exposed_ports: Vec<String>,
        /// Volumes.
        pub volumes: Vec<String>,
        /// Stop signal.
        pub stop_signal: Option<String>,
    }

    /// `Inspect` reply.
    pub struct ImageInspectReply {
        /// The image.
        pub image: ImageDetail,
    }

    /// `Pull` parameters. With `more`, replies show progress; the last one has `image_id`.
    #[derive(Default)]
    pub struct PullParams {
        /// Reference; short names mean docker.io as in Docker.
        pub reference: String,
        /// `os/architecture[/variant]`; this machine's if absent.
        pub platform: Option<String>,
    }

    /// Where one layer is.
    #[derive(Copy)]
    pub enum LayerState {
        /// Not begun.
        Waiting,
        /// Being fetched and unpacked.
        Pulling,
        /// Unpacked and verified.
        Done,
        /// It was here already.
        Exists,
    }

    /// Progress of one layer.
    pub struct LayerProgress {
        /// Digest of the compressed layer.
        pub digest: String,
        /// State.
        pub state: LayerState,
        /// Bytes received.
        pub received_bytes: i64,
        /// Bytes in all.
        pub total_bytes: i64,
    }

    /// `Pull` reply: only layers that changed since the reply before.
    #[derive(Default)]
    #[serde(default)]
    pub struct PullReply {
        /// Full reference, in the first reply.
        pub reference: Option<String>,
        /// Layers that changed, lowest first; all of them in the first reply.
        pub layers: Vec<LayerProgress>,
        /// Set in the last reply: the image's id.
        pub image_id: Option<String>,
        /// Set in the last reply: the manifest's digest.
        pub manifest_digest: Option<String>,
    }

    /// `Import` parameters. The connection is upgraded: the client sends a tar (plain, gzip or zstd) in
    /// Stdin frames and an empty one at its end; the server answers with a Result frame.
    #[derive(Default)]
    #[serde(default)]
    pub struct ImportParams {
        /// Reference to give the image; none leaves it untagged.
        pub reference: Option<String>,
        /// Command of the image.
        pub command: Vec<String>,
        /// Environment of the image.
        pub env: Vec<String>,
    }

    /// `Import` reply before the upgrade.
    #[derive(Default)]
    pub struct ImportReply {}

    /// Content of the Result frame of `Import`.
    pub struct ImportResult {
        /// The new image's id.
        pub image_id: String,
    }

    /// `Remove` parameters.
    #[derive(Default)]
    pub struct ImageRemoveParams {
        /// Reference, id or prefix.
        pub reference: String,
        /// Also if several references name it, and with the ended containers that use it.
        #[serde(default)]
        pub force: bool,
    }

    /// `Remove` reply.
    #[derive(Default)]
    #[serde(default)]
    pub struct ImageRemoveReply {
        /// References taken away.
        pub untagged: Vec<String>,
        /// Ids of images deleted.
        pub deleted: Vec<String>,
    }
}
