//! A registry of a few lines that answers with exactly the bytes it is told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::Sha256;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::registry::digest_text;
use crate::{Config, Platform, Reference, Registry, Timeouts};

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// One answer to one request.
#[derive(Clone)]
pub(super) struct Answer {
    /// Status line's number and all headers but `Content-Length`.
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) how: How,
}

/// What is wrong with its body.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum How {
    /// Nothing.
    Whole,
    /// In chunks, without a length.
    Chunked,
    /// Cut after so many bytes, with the length of the whole.
    Cut(usize),
    /// Silent after so many bytes.
    Stall(usize),
    /// Nothing at all, not even headers.
    Silent,
    /// Like `Whole`, but a request for a range gets that range.
    Ranges,
    /// Like `Cut` for a request from 0, and `Ranges` for the others.
    CutThenRanges(usize),
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Self {
            status,
            headers,
            body: body.into(),
            how: How::Whole,
        }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn how(mut self, how: How) -> Self {
        self.how = how;
        self
    }
}

/// Requests seen: path, headers in lower case.
pub(super) type Seen = Arc<Mutex<Vec<(String, HashMap<String, String>)>>>;

pub(super) struct Server {
    pub(super) address: String,
    pub(super) seen: Seen,
    routes: Arc<Mutex<HashMap<String, Vec<Answer>>>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Self {
            address,
            seen: Seen::default(),
            routes: Arc::default(),
        };
        let (seen, routes) = (server.seen.clone(), server.routes.clone());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, seen.clone(), routes.clone()));
            }
        });
        server
    }

    /// Answers a path, in turn; the last answer stays.
    pub(super) fn on(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.routes
            .lock()
            .unwrap()
            .insert(path.to_owned(), answers.into_iter().collect());
    }

    pub(super) fn reference(&self) -> Reference {
        format!("{}/app:1", self.address).parse().unwrap()
    }

    /// Paths asked for, in order.
    pub(super) fn paths(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Serves an image of one layer under tag 1. Returns its layer's path.
    pub(super) fn image(&self, layer: &[u8], size: Option<u64>) -> String {
        let config = format!(
            r#"{{"os":"linux","architecture":"{}","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Platform::native().architecture,
            sha(b"inside"),
        );
        self.image_of(&config, layer, size)
    }

    pub(super) fn image_of(&self, config: &str, layer: &[u8], size: Option<u64>) -> String {
        let manifest = manifest(config, &[(layer, size)]);
        self.on(
            "/v2/app/manifests/1",
            [Answer::new(200, OCI_MANIFEST, manifest)],
        );
        self.on(
            &blob(config.as_bytes()),
            [Answer::new(200, "text/plain", config)],
        );
        self.on(&blob(layer), [Answer::new(200, "text/plain", layer)]);
        blob(layer)
    }
}

pub(super) fn sha(bytes: &[u8]) -> String {
    use sha2::Digest;
    digest_text(Sha256::new_with_prefix(bytes))
}

pub(super) fn blob(bytes: &[u8]) -> String {
    format!("/v2/app/blobs/{}", sha(bytes))
}

pub(super) fn manifest(config: &str, layers: &[(&[u8], Option<u64>)]) -> String {
    let layers: Vec<String> = layers
        .iter()
        .map(|(layer, size)| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":{}}}"#,
                sha(layer),
                size.unwrap_or(layer.len() as u64),
            )
        })
        .collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":
        "application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{}]}}"#,
        sha(config.as_bytes()),
        config.len(),
        layers.join(","),
    )
}

/// A client that loses patience quickly.
pub(super) fn client() -> Registry {
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        stall: Duration::from_millis(150),
        backoff: Duration::from_millis(1),
    };
    Registry::new(Config {
        insecure: Vec::new(),
        auth_files: Vec::new(),
        timeouts,
    })
}

async fn serve(
    connection: TcpStream,
    seen: Seen,
    routes: Arc<Mutex<HashMap<String, Vec<Answer>>>>,
) -> Option<()> {
    let mut connection = BufReader::new(connection);
    loop {
        let (path, headers) = read_request(&mut connection).await?;
        seen.lock().unwrap().push((path.clone(), headers.clone()));
        let answer = {
            let mut routes = routes.lock().unwrap();
            match routes.get_mut(&path) {
                Some(answers) if answers.len() > 1 => answers.remove(0),
                Some(answers) => answers[0].clone(),
                None => Answer::new(
                    404,
                    "application/json",
                    r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                ),
            }
        };
        let range = headers.get("range").and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        respond(connection.get_mut(), answer, range).await?;
    }
}

async fn read_request(
    connection: &mut BufReader<TcpStream>,
) -> Option<(String, HashMap<String, String>)> {
    let mut line = String::new();
    connection.read_line(&mut line).await.ok()?;
    let path = line.split(' ').nth(1)?.split('?').next()?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    Some((path, headers))
}

/// Nothing ends the connection.
async fn respond(connection: &mut TcpStream, answer: Answer, range: Option<usize>) -> Option<()> {
    let (how, offset) = match (answer.how, range) {
        (How::CutThenRanges(at), None) => (How::Cut(at), 0),
        (How::CutThenRanges(_) | How::Ranges, Some(offset)) => (How::Whole, offset),
        (how, _) => (how, 0),
    };
    if how == How::Silent {
        std::future::pending::<()>().await;
    }
    let whole = answer.body.len();
    let body = answer.body.get(offset..).unwrap_or_default();
    let status = if offset > 0 { 206 } else { answer.status };
    let mut head = format!("HTTP/1.1 {status} X\r\n");
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if offset > 0 {
        head.push_str(&format!(
            "Content-Range: bytes {offset}-{}/{whole}\r\n",
            whole - 1
        ));
    }
    if how == How::Chunked {
        head.push_str("Transfer-Encoding: chunked\r\n\r\n");
        connection.write_all(head.as_bytes()).await.ok()?;
        for piece in body.chunks(7) {
            connection
                .write_all(format!("{:x}\r\n", piece.len()).as_bytes())
                .await
                .ok()?;
            connection.write_all(piece).await.ok()?;
            connection.write_all(b"\r\n").await.ok()?;
        }
        connection.write_all(b"0\r\n\r\n").await.ok()?;
        return Some(());
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    connection.write_all(head.as_bytes()).await.ok()?;
    match how {
        How::Cut(at) => {
            connection.write_all(&body[..at]).await.ok()?;
            None
        }
        How::Stall(at) => {
            connection.write_all(&body[..at]).await.ok()?;
            std::future::pending::<()>().await;
            None
        }
        _ => connection.write_all(body).await.ok(),
    }
}
