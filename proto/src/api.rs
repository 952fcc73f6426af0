//! The methods of the API: the one table.
//!
//! Adding a method means adding a line here and implementing the trait's new function in the
//! daemon; interface descriptions, dispatch and checks of parameters follow.

use crate::table::{Interface, Table, interface};
use crate::types::Empty;
use crate::types::container::{
    AttachParams, AttachReply, Bind, ContainerConfig, ContainerDetail, ContainerId, ContainerState,
    ContainerSummary, CreateParams, CreateReply, EffectiveConfig, InspectReply, KillParams,
    ListParams, ListReply, LogsParams, LogsReply, RemoveParams, ResizeParams, StopParams,
    WaitReply,
};
use crate::types::exec::{ExecConfig, ExecId, ExecParams, ExecReply};
use crate::types::image::{
    ImageDetail, ImageInspectReply, ImageListReply, ImageName, ImageRemoveParams, ImageRemoveReply,
    ImageSummary, ImportParams, ImportReply, LayerProgress, LayerState, PullParams, PullReply,
};
use crate::types::system::{IdRange, InfoReply, Shortcoming, VersionReply};

pub use service::{SERVICE, ServiceApi, service_rows};

mod service;

/// Version of the API, `major.minor`: minor grows with every addition, major with every change
/// that an older client would trip over.
pub const API_VERSION: &str = "1.0";

interface! {
    /// Containers: make, run, watch and remove them.
    interface "io.rcd.Container", trait ContainerApi, static CONTAINER, rows container_rows,
    types [ContainerConfig, Bind, ContainerState, ContainerSummary, ContainerDetail, EffectiveConfig];
    /// Lists containers.
    Once List list(ListParams) -> ListReply;
    /// Makes a container. It does not start it, and does not fetch its image.
    Once Create create(CreateParams) -> CreateReply;
    /// Starts a container and returns when its program runs.
    Once Start start(ContainerId) -> Empty;
    /// Sends a container its stop signal, SIGKILL after the timeout, and returns when it has ended.
    Once Stop stop(StopParams) -> Empty;
    /// Sends a container a signal.
    Once Kill kill(KillParams) -> Empty;
    /// Removes a container with its files and logs.
    Once Remove remove(RemoveParams) -> Empty;
    /// Returns when a container has ended.
    Once Wait wait(ContainerId) -> WaitReply;
    /// Describes a container.
    Once Inspect inspect(ContainerId) -> InspectReply;
    /// Connects to a container's standard streams. After the reply the connection carries frames:
    /// the client sends Stdin and Resize, the server Stdout and Stderr, and one of Exit, Error or
    /// End as its last.
    Upgrade Attach attach(AttachParams) -> AttachReply;
    /// Reads a container's log. After the reply the connection carries frames: Stdout and Stderr,
    /// then End or Error.
    Upgrade Logs logs(LogsParams) -> LogsReply;
    /// Sets the size of a container's terminal.
    Once Resize resize(ResizeParams) -> Empty;
}

interface! {
    /// Further processes in running containers.
    interface "io.rcd.Exec", trait ExecApi, static EXEC, rows exec_rows, types [ExecConfig];
    /// Runs a program in a container, connected to its standard streams. After the reply the
    /// connection carries frames, as in io.rcd.Container.Attach.
    Upgrade Run run(ExecParams) -> ExecReply;
    /// Starts a program in a container, connected to nothing.
    Once Start start(ExecParams) -> ExecReply;
    /// Takes up the standard streams of a program that Run started, after its connection broke.
    Upgrade Attach attach(ExecId) -> ExecReply;
}

interface! {
    /// Images: fetch, describe and remove them.
    interface "io.rcd.Image", trait ImageApi, static IMAGE, rows image_rows,
    types [ImageSummary, ImageDetail, LayerProgress, LayerState];
    /// Lists images.
    Once List list(Empty) -> ImageListReply;
    /// Describes an image.
    Once Inspect inspect(ImageName) -> ImageInspectReply;
    /// Fetches an image from its registry. With 'more', replies show progress; the last one names
    /// the image. Without, that one is the only reply.
    Streaming Pull pull(PullParams) -> PullReply;
    /// Makes an image of one layer from a tar of a root file system. After the reply the client
    /// sends the tar (plain, gzip or zstd) in Stdin frames, ended by an empty one; the server
    /// answers with a Result frame that holds an ImportResult as JSON, or with Error.
    Upgrade Import import(ImportParams) -> ImportReply;
    /// Takes references away from an image, and deletes it when none is left.
    Once Remove remove(ImageRemoveParams) -> ImageRemoveReply;
}

interface! {
    /// The daemon and the host that it runs on.
    interface "io.rcd.System", trait SystemApi, static SYSTEM, rows system_rows,
    types [VersionReply, Shortcoming, IdRange];
    /// Versions of the daemon and its parts.
    Once GetVersion get_version(Empty) -> VersionReply;
    /// State of the daemon, and what this host lacks.
    Once GetInfo get_info(Empty) -> InfoReply;
    /// Answers.
    Once Ping ping(Empty) -> Empty;
}

/// Every interface of rcd.
pub static INTERFACES: [&Interface; 5] = [&SERVICE, &CONTAINER, &EXEC, &IMAGE, &SYSTEM];

/// The whole API.
pub trait Api: ContainerApi + ExecApi + ImageApi + SystemApi {}

impl<A: ContainerApi + ExecApi + ImageApi + SystemApi> Api for A {}

/// The methods of the whole API, callable by name.
pub fn table<A: Api>() -> Table<A> {
    let rows = service_rows()
        .into_iter()
        .chain(container_rows())
        .chain(exec_rows());
    Table::new(&INTERFACES, rows.chain(image_rows()).chain(system_rows()))
}
