//! The wire loop against a made-up server and a hand-written peer.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream;
use rcd_proto::api::{self, ContainerApi, ExecApi, ImageApi, SystemApi};
use rcd_proto::types::Empty;
use rcd_proto::types::container::*;
use rcd_proto::types::exec::{ExecId, ExecParams, ExecReply};
use rcd_proto::types::image::*;
use rcd_proto::types::system::{InfoReply, VersionReply};
use rcd_proto::wire::Reply;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::Notify;

use super::*;

/// Answers Ping at once, Wait when told, Pull with as many replies as its reference says, Attach by
/// echoing bytes.
#[derive(Default)]
struct Fake {
    waiting: AtomicUsize,
    wake: Notify,
    started: Notify,
    dropped: Notify,
}

struct Guard<'a>(&'a Fake);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.dropped.notify_one();
    }
}

macro_rules! refuse {
    ($($name:ident($input:ty) -> $output:ty;)+) => { $(
        async fn $name(&self, _: $input) -> Result<$output, Error> {
            Err(Error::NotSupported { message: "not here".into(), what: stringify!($name).into() })
        }
    )+ };
}

impl Server for Fake {
    type Session = Session;
}

impl ContainerApi for Fake {
    async fn list(&self, _: ListParams) -> Result<ListReply, Error> {
        Ok(ListReply { containers: vec![] })
    }

    async fn wait(&self, _: ContainerId) -> Result<WaitReply, Error> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _guard = Guard(self);
        self.started.notify_one();
        self.wake.notified().await;
        Ok(WaitReply { exit_code: 7 })
    }

    async fn attach(&self, parameters: AttachParams) -> Result<(AttachReply, Session), Error> {
        let reply = AttachReply {
            id: parameters.id,
            tty: false,
            stdout_offset: 0,
            stderr_offset: 0,
        };
        let session: Session = Box::new(|mut upgraded| {
            Box::pin(async move {
                upgraded.stream.write_all(&upgraded.early).await.unwrap();
                let (mut read, mut write) = upgraded.stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            })
        });
        Ok((reply, session))
    }

    refuse! {
        create(CreateParams) -> CreateReply; start(ContainerId) -> Empty; stop(StopParams) -> Empty;
        kill(KillParams) -> Empty; remove(RemoveParams) -> Empty; inspect(ContainerId) -> InspectReply;
        logs(LogsParams) -> (LogsReply, Session); resize(ResizeParams) -> Empty;
    }
}

impl ExecApi for Fake {
    refuse! {
        run(ExecParams) -> (ExecReply, Session); start(ExecParams) -> ExecReply;
        attach(ExecId) -> (ExecReply, Session);
    }
}

impl ImageApi for Fake {
    async fn pull(&self, parameters: PullParams) -> Result<ItemStream<PullReply>, Error> {
        let count: usize = parameters
            .reference
            .parse()
            .map_err(|_| Error::InvalidReference {
                message: "not a number".into(),
                reference: parameters.reference.clone(),
            })?;
        let reply = |n: usize| PullReply {
            reference: Some(n.to_string()),
            ..Default::default()
        };
        let more = stream::iter(1..count).map(move |n| Ok(Item::More(reply(n))));
        Ok(Box::pin(more.chain(stream::once(async move {
            Ok(Item::Last(reply(count)))
        }))))
    }

    refuse! {
        list(Empty) -> ImageListReply; inspect(ImageName) -> ImageInspectReply;
        import(ImportParams) -> (ImportReply, Session); remove(ImageRemoveParams) -> ImageRemoveReply;
    }
}

impl SystemApi for Fake {
    async fn ping(&self, _: Empty) -> Result<Empty, Error> {
        Ok(Empty {})
    }

    refuse! { get_version(Empty) -> VersionReply; get_info(Empty) -> InfoReply; }
}

struct Peer {
    stream: UnixStream,
    messages: Messages,
}

impl Peer {
    fn connect(fake: &Arc<Fake>) -> (Peer, CancellationToken) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (fake, shutdown) = (Arc::clone(fake), CancellationToken::new());
        let token = shutdown.clone();
        tokio::spawn(async move { serve(theirs, fake, &api::table(), token).await });
        (
            Peer {
                stream: ours,
                messages: Messages::default(),
            },
            shutdown,
        )
    }

    async fn send(&mut self, message: &str) {
        self.stream.write_all(message.as_bytes()).await.unwrap();
        self.stream.write_all(b"\0").await.unwrap();
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.send(&json!({ "method": method, "parameters": parameters }).to_string())
            .await;
        self.reply().await.expect("a reply")
    }

    /// The next reply; none if the connection is closed.
    async fn reply(&mut self) -> Option<Value> {
        loop {
            if let Some(message) = self.messages.next_message().unwrap() {
                return Some(serde_json::from_slice(message).unwrap());
            }
            let mut bytes = vec![0; 64 << 10];
            match self.stream.read(&mut bytes).await.unwrap() {
                0 => return None,
                len => self.messages.extend(&bytes[..len]),
            }
        }
    }
}

fn error_of(reply: &Value) -> (&str, &str) {
    let text =
        |value: &'_ Value| -> bool { value["message"].as_str().is_some_and(|m| !m.is_empty()) };
    assert!(text(&reply["parameters"]), "{reply}");
    (
        reply["error"].as_str().unwrap_or_default(),
        reply["parameters"]["parameter"]
            .as_str()
            .unwrap_or_default(),
    )
}

const INVALID: &str = "org.varlink.service.InvalidParameter";

#[tokio::test]
async fn bad_input_gets_a_typed_error_and_keeps_the_connection() {
    let (mut peer, _shutdown) = Peer::connect(&Arc::default());
    for bad in ["", "{", "[]", "\u{1}", r#"{"method":3}"#] {
        peer.send(bad).await;
        assert_eq!(
            error_of(&peer.reply().await.unwrap()),
            (INVALID, ""),
            "{bad}"
        );
    }
    let cases = [
        ("io.rcd.Container.Wait", json!({}), INVALID, "id"),
        ("io.rcd.Container.Wait", json!({ "id": 3 }), INVALID, "id"),
        (
            "io.rcd.Container.Wait",
            json!({ "id": "x", "idd": 1 }),
            INVALID,
            "idd",
        ),
        ("io.rcd.Container.Wait", json!([]), INVALID, ""),
        (
            "io.rcd.Container.Attach",
            json!({ "id": "x" }),
            INVALID,
            "upgrade",
        ),
        (
            "io.rcd.Container.Nope",
            json!({}),
            "org.varlink.service.MethodNotFound",
            "",
        ),
        (
            "io.nope.Nope",
            json!({}),
            "org.varlink.service.InterfaceNotFound",
            "",
        ),
        (
            "nope",
            json!(null),
            "org.varlink.service.InterfaceNotFound",
            "",
        ),
        (
            "io.rcd.Image.Pull",
            json!({ "reference": "x" }),
            "io.rcd.Image.InvalidReference",
            "",
        ),
    ];
    for (method, parameters, error, parameter) in cases {
        let reply = peer.call(method, parameters).await;
        assert_eq!(error_of(&reply), (error, parameter), "{method}");
    }
    peer.send(r#"{"method":"io.rcd.System.Ping","upgrade":true}"#)
        .await;
    assert_eq!(error_of(&peer.reply().await.unwrap()), (INVALID, "upgrade"));
    let ping = r#"{"meth\u006fd":"io.rcd.System.Ping","more":null,"parameters":null}"#;
    peer.send(ping).await;
    assert_eq!(peer.reply().await.unwrap(), json!({ "parameters": {} }));
}

#[tokio::test]
async fn a_message_over_the_cap_is_refused_and_the_next_one_served() {
    let (peer, _shutdown) = Peer::connect(&Arc::default());
    let Peer { stream, messages } = peer;
    let (read, mut write) = stream.into_split();
    let writer = tokio::spawn(async move {
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..17 {
            write.write_all(&chunk).await.unwrap();
        }
        write
            .write_all(b"\0{\"method\":\"io.rcd.System.Ping\"}\0")
            .await
            .unwrap();
        write
    });
    let write = writer.await.unwrap();
    let mut peer = Peer {
        stream: read.reunite(write).unwrap(),
        messages,
    };
    assert_eq!(error_of(&peer.reply().await.unwrap()), (INVALID, ""));
    assert_eq!(peer.reply().await.unwrap(), json!({ "parameters": {} }));
}

#[tokio::test]
async fn pipelined_calls_are_answered_in_order() {
    let (mut peer, _shutdown) = Peer::connect(&Arc::default());
    let mut calls = Vec::new();
    for n in 0..100 {
        let call = json!({ "method": "io.rcd.Image.Pull", "parameters": { "reference": (n + 1).to_string() } });
        calls.extend_from_slice(format!("{call}\0").as_bytes());
        calls.extend_from_slice(b"{\"method\":\"io.rcd.System.Ping\",\"oneway\":true}\0");
    }
    peer.stream.write_all(&calls).await.unwrap();
    for n in 0..100 {
        let reply = peer.reply().await.unwrap();
        // Without `more`, the last reply is the only one.
        assert_eq!(reply["parameters"]["reference"], (n + 1).to_string());
        assert!(reply.get("continues").is_none());
    }
}

#[tokio::test]
async fn replies_are_sent_before_a_slow_call_is_awaited() {
    let fake = Arc::new(Fake::default());
    let (mut peer, _shutdown) = Peer::connect(&fake);
    let calls = "{\"method\":\"io.rcd.System.Ping\"}\0{\"method\":\"io.rcd.Container.Wait\",\"parameters\":{\"id\":\"a\"}}\0{\"method\":\"io.rcd.System.Ping\"}\0";
    peer.stream.write_all(calls.as_bytes()).await.unwrap();
    assert_eq!(peer.reply().await.unwrap(), json!({ "parameters": {} }));
    fake.started.notified().await;
    fake.wake.notify_one();
    assert_eq!(
        peer.reply().await.unwrap(),
        json!({ "parameters": { "exitCode": 7 } })
    );
    assert_eq!(peer.reply().await.unwrap(), json!({ "parameters": {} }));
}

#[tokio::test]
async fn a_stream_says_which_reply_is_its_last() {
    let (mut peer, _shutdown) = Peer::connect(&Arc::default());
    peer.send(r#"{"method":"io.rcd.Image.Pull","parameters":{"reference":"3"},"more":true}"#)
        .await;
    for (n, continues) in [("1", true), ("2", true), ("3", false)] {
        let reply = peer.reply().await.unwrap();
        assert_eq!(reply["parameters"]["reference"], n);
        let text = reply.to_string();
        assert_eq!(Reply::parse(text.as_bytes()).unwrap().continues, continues);
    }
}

#[tokio::test]
async fn hanging_up_cancels_the_call() {
    let fake = Arc::new(Fake::default());
    let (mut peer, _shutdown) = Peer::connect(&fake);
    peer.send(r#"{"method":"io.rcd.Container.Wait","parameters":{"id":"a"}}"#)
        .await;
    fake.started.notified().await;
    drop(peer);
    fake.dropped.notified().await;
    assert_eq!(fake.waiting.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn hanging_up_after_more_calls_than_are_read_ahead_cancels_too() {
    let fake = Arc::new(Fake::default());
    let (mut peer, _shutdown) = Peer::connect(&fake);
    peer.send(r#"{"method":"io.rcd.Container.Wait","parameters":{"id":"a"}}"#)
        .await;
    fake.started.notified().await;
    peer.stream
        .write_all(&vec![b' '; READ_AHEAD_BYTES_MAX + READ_BYTES])
        .await
        .unwrap();
    drop(peer);
    fake.dropped.notified().await;
}

#[tokio::test]
async fn a_peer_that_ends_its_sending_still_gets_its_replies() {
    let fake = Arc::new(Fake::default());
    let (mut peer, _shutdown) = Peer::connect(&fake);
    peer.send(r#"{"method":"io.rcd.Container.Wait","parameters":{"id":"a"}}"#)
        .await;
    peer.stream.shutdown().await.unwrap();
    fake.started.notified().await;
    tokio::task::yield_now().await;
    fake.wake.notify_one();
    assert_eq!(
        peer.reply().await.unwrap(),
        json!({ "parameters": { "exitCode": 7 } })
    );
    assert_eq!(peer.reply().await, None);
}

#[tokio::test]
async fn an_upgraded_connection_carries_early_bytes_and_half_close() {
    let (mut peer, _shutdown) = Peer::connect(&Arc::default());
    let call = "{\"method\":\"io.rcd.Container.Attach\",\"parameters\":{\"id\":\"a\"},\"upgrade\":true}\0early ";
    peer.stream.write_all(call.as_bytes()).await.unwrap();
    assert_eq!(peer.reply().await.unwrap()["parameters"]["id"], "a");
    peer.stream.write_all(b"late").await.unwrap();
    peer.stream.shutdown().await.unwrap();
    let mut bytes = peer.messages.into_rest();
    peer.stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"early late");
}

#[tokio::test]
async fn shutdown_ends_waiting_calls_and_idle_connections() {
    let fake = Arc::new(Fake::default());
    let (mut waiting, shutdown) = Peer::connect(&fake);
    waiting
        .send(r#"{"method":"io.rcd.Container.Wait","parameters":{"id":"a"}}"#)
        .await;
    fake.started.notified().await;
    let (mut idle, idle_shutdown) = Peer::connect(&fake);
    shutdown.cancel();
    idle_shutdown.cancel();
    assert_eq!(idle.reply().await, None);
    assert_eq!(waiting.reply().await, None);
}

#[tokio::test]
async fn a_stalled_reader_stalls_no_other_of_two_hundred_connections() {
    let fake = Arc::new(Fake::default());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let shutdown = CancellationToken::new();
    let table = Arc::new(api::table());
    let serving = crate::api::server::serve(listener, fake, table, shutdown.clone());
    let serving = tokio::spawn(serving);

    // More replies than any socket buffer holds, and nobody reads them.
    let mut stalled = UnixStream::connect(&path).await.unwrap();
    let flood =
        r#"{"method":"io.rcd.Image.Pull","parameters":{"reference":"1000000"},"more":true}"#;
    stalled
        .write_all(format!("{flood}\0").as_bytes())
        .await
        .unwrap();
    stalled.readable().await.unwrap();

    let mut peers = Vec::new();
    for _ in 0..200 {
        let stream = UnixStream::connect(&path).await.unwrap();
        peers.push(Peer {
            stream,
            messages: Messages::default(),
        });
    }
    for peer in &mut peers {
        assert_eq!(
            peer.call("io.rcd.System.Ping", json!({})).await,
            json!({ "parameters": {} })
        );
    }
    // Nor does it hold up the end.
    shutdown.cancel();
    serving.await.unwrap();
    drop(stalled);
}

#[tokio::test]
async fn the_service_describes_itself() {
    let (mut peer, _shutdown) = Peer::connect(&Arc::default());
    let info = peer.call("org.varlink.service.GetInfo", json!({})).await;
    let interfaces = info["parameters"]["interfaces"].as_array().unwrap().clone();
    assert!(interfaces.contains(&json!("io.rcd.Container")));
    for interface in interfaces {
        let method = "org.varlink.service.GetInterfaceDescription";
        let reply = peer.call(method, json!({ "interface": interface })).await;
        let text = reply["parameters"]["description"].as_str().unwrap();
        assert!(text.contains(&format!("interface {}\n", interface.as_str().unwrap())));
    }
}
