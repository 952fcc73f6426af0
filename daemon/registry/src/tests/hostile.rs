//! Registries that fail, lie and dawdle.

use futures_util::StreamExt;

use super::server::{Answer, How, OCI_INDEX, OCI_MANIFEST, Server, blob, client, manifest, sha};
use crate::{Config, Error, MANIFEST_BYTES_MAX, Platform, Reference, Registry};

const LAYER: &[u8] = b"the bytes of a layer, as they travel";

/// Pulls the server's image with its layers.
async fn pull(server: &Server) -> Result<Vec<u8>, Error> {
    pull_with(&client(), server).await
}

async fn pull_with(client: &Registry, server: &Server) -> Result<Vec<u8>, Error> {
    let resolved = client.resolve(&server.reference(), None).await?;
    let mut all = Vec::new();
    for index in 0..resolved.layers.len() {
        let mut stream = client.layer(&resolved, index).await?;
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece?);
        }
        assert!(stream.next().await.is_none(), "an ended stream stays ended");
    }
    Ok(all)
}

/// The text of the error of pulling an image whose layer is answered so.
async fn layer_error(answers: impl IntoIterator<Item = Answer>) -> String {
    let server = Server::start().await;
    let path = server.image(LAYER, None);
    server.on(&path, answers);
    pull(&server).await.unwrap_err().to_string()
}

fn answer(body: &[u8]) -> Answer {
    Answer::new(200, "application/octet-stream", body)
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[tokio::test]
async fn an_image_is_pulled_whole() {
    let server = Server::start().await;
    server.image(LAYER, None);
    assert_eq!(pull(&server).await.unwrap(), LAYER);
}

#[tokio::test]
async fn a_layer_without_length_is_pulled() {
    let server = Server::start().await;
    let path = server.image(LAYER, None);
    server.on(&path, [answer(LAYER).how(How::Chunked)]);
    assert_eq!(pull(&server).await.unwrap(), LAYER);
}

#[tokio::test]
async fn a_lying_digest_is_found_out() {
    let text = layer_error([answer(b"other bytes but of the same length..")]).await;
    assert_has(&text, &["layer sha256:", "is corrupt", "expected sha256:"]);
}

#[tokio::test]
async fn a_lying_size_is_found_out() {
    for size in [LAYER.len() as u64 - 1, LAYER.len() as u64 + 1] {
        let server = Server::start().await;
        server.image(LAYER, Some(size));
        let text = pull(&server).await.unwrap_err().to_string();
        assert_has(&text, &["is corrupt", &format!("expected {size} bytes")]);
    }
}

#[tokio::test]
async fn a_cut_transfer_is_resumed_where_it_broke() {
    let server = Server::start().await;
    let path = server.image(LAYER, None);
    server.on(&path, [answer(LAYER).how(How::CutThenRanges(10))]);
    assert_eq!(pull(&server).await.unwrap(), LAYER);
    let seen = server.seen.lock().unwrap();
    let (_, headers) = seen.last().unwrap();
    assert_eq!(headers["range"], "bytes=10-");
}

#[tokio::test]
async fn a_server_without_ranges_is_read_again_from_its_start() {
    let server = Server::start().await;
    let path = server.image(LAYER, None);
    server.on(&path, [answer(LAYER).how(How::Cut(20)), answer(LAYER)]);
    assert_eq!(pull(&server).await.unwrap(), LAYER);
}

#[tokio::test]
async fn a_second_half_of_other_bytes_is_found_out() {
    let mut other = LAYER.to_vec();
    other[30] ^= 1;
    let text = layer_error([
        answer(LAYER).how(How::Cut(20)),
        answer(&other).how(How::Ranges),
    ])
    .await;
    assert_has(&text, &["is corrupt"]);
}

#[tokio::test]
async fn a_range_from_elsewhere_is_refused() {
    let wrong = Answer::new(206, "x/y", &LAYER[5..]).header("Content-Range", "bytes 5-35/36");
    let text = layer_error([answer(LAYER).how(How::Cut(20)), wrong]).await;
    assert_has(&text, &["bad answer", "HTTP 206 for bytes from 20"]);
}

#[tokio::test]
async fn a_transfer_that_is_always_cut_ends() {
    let text = layer_error([answer(LAYER).how(How::Cut(4))]).await;
    assert_has(&text, &["broke 5 times", "127.0.0.1:"]);
}

#[tokio::test]
async fn a_stalled_transfer_ends() {
    let text = layer_error([answer(LAYER).how(How::Stall(4))]).await;
    assert_has(&text, &["sent nothing for", "layer sha256:"]);
}

#[tokio::test]
async fn a_stalled_transfer_is_resumed() {
    let server = Server::start().await;
    let path = server.image(LAYER, None);
    server.on(
        &path,
        [
            answer(LAYER).how(How::Stall(4)),
            answer(LAYER).how(How::Ranges),
        ],
    );
    assert_eq!(pull(&server).await.unwrap(), LAYER);
}

#[tokio::test]
async fn a_redirected_layer_is_pulled_without_credentials() {
    let (server, store) = (Server::start().await, Server::start().await);
    let path = server.image(LAYER, None);
    let location = format!("http://{}/bucket", store.address);
    server.on(
        &path,
        [Answer::new(307, "x/y", "").header("Location", &location)],
    );
    store.on("/bucket", [answer(LAYER)]);
    assert_eq!(pull(&server).await.unwrap(), LAYER);
    assert!(
        !store.seen.lock().unwrap()[0]
            .1
            .contains_key("authorization")
    );
}

#[tokio::test]
async fn redirects_end_and_stay_on_safe_ground() {
    let redirect = |to: &str| Answer::new(302, "x/y", "").header("Location", to);
    let text = layer_error([redirect("?again")]).await;
    assert_has(&text, &["more than 5 redirects"]);
    let text = layer_error([redirect("http://203.0.113.1/x")]).await;
    assert_has(&text, &["203.0.113.1 without TLS"]);
    let text = layer_error([redirect("file:///etc/passwd")]).await;
    assert_has(&text, &["scheme file"]);
    let text = layer_error([Answer::new(302, "x/y", "")]).await;
    assert_has(&text, &["redirect to nowhere"]);
}

/// The text of the error of a manifest that is answered so.
async fn manifest_error(answers: impl IntoIterator<Item = Answer>) -> String {
    let server = Server::start().await;
    server.image(LAYER, None);
    server.on("/v2/app/manifests/1", answers);
    pull(&server).await.unwrap_err().to_string()
}

#[tokio::test]
async fn manifests_that_are_none_are_refused() {
    let check = async |content_type: &str, body: &str, parts: &[&str]| {
        let text = manifest_error([Answer::new(200, content_type, body)]).await;
        assert_has(&text, &["cannot use manifest 1 of 127.0.0.1:"]);
        assert_has(&text, parts);
    };
    check(OCI_MANIFEST, "{", &["not a manifest"]).await;
    check(OCI_MANIFEST, "[]", &["not a manifest"]).await;
    check(OCI_MANIFEST, "", &["not a manifest"]).await;
    check(
        OCI_MANIFEST,
        r#"{"schemaVersion":1}"#,
        &["schema 1", "push the image anew"],
    )
    .await;
    check(
        OCI_MANIFEST,
        r#"{"schemaVersion":3}"#,
        &["schema version 3"],
    )
    .await;
    check(
        "text/html",
        r#"{"schemaVersion":2}"#,
        &["media type `text/html`"],
    )
    .await;
    check(OCI_MANIFEST, r#"{"schemaVersion":2}"#, &["no config"]).await;
    let nested = format!("{}1{}", "[".repeat(9999), "]".repeat(9999));
    check(OCI_MANIFEST, &nested, &["not a manifest"]).await;
    let good = manifest("{}", &[(LAYER, None)]);
    check(
        OCI_MANIFEST,
        &good.replace("sha256:", "md5:"),
        &["not sha256"],
    )
    .await;
    check(
        OCI_MANIFEST,
        &good.replace("tar+gzip", "tar+lzma"),
        &["no file system"],
    )
    .await;
    let foreign = good.replace("layer.v1", "layer.nondistributable.v1");
    check(OCI_MANIFEST, &foreign, &["foreign"]).await;
    let many = manifest("{}", &vec![(LAYER, None); 129]);
    check(OCI_MANIFEST, &many, &["129 layers, more than 128"]).await;
}

#[tokio::test]
async fn a_huge_manifest_is_not_read() {
    let huge = vec![b' '; MANIFEST_BYTES_MAX as usize + 1];
    let text = manifest_error([Answer::new(200, OCI_MANIFEST, huge.clone())]).await;
    assert_has(&text, &["manifest 1 has more than 4194304 bytes"]);
    let text = manifest_error([Answer::new(200, OCI_MANIFEST, huge).how(How::Chunked)]).await;
    assert_has(&text, &["more than 4194304 bytes"]);
}

#[tokio::test]
async fn a_config_that_does_not_fit_is_refused() {
    let check = async |config: &str, part: &str| {
        let server = Server::start().await;
        server.image_of(config, LAYER, None);
        assert_has(
            &pull(&server).await.unwrap_err().to_string(),
            &["config sha256:", part],
        );
    };
    check("{}", "not a config").await;
    check(
        r#"{"rootfs":{"diff_ids":[]}}"#,
        "0 diff ids, the manifest 1 layers",
    )
    .await;
    check(r#"{"rootfs":{"diff_ids":["x"]}}"#, "diff id").await;
}

#[tokio::test]
async fn a_manifest_asked_for_by_digest_must_have_it() {
    let server = Server::start().await;
    let digest = sha(b"something else");
    let body = manifest("{}", &[]);
    server.on(
        &format!("/v2/app/manifests/{digest}"),
        [Answer::new(200, OCI_MANIFEST, body)],
    );
    let reference: Reference = format!("{}/app@{digest}", server.address).parse().unwrap();
    let text = client()
        .resolve(&reference, None)
        .await
        .unwrap_err()
        .to_string();
    assert_has(&text, &["is corrupt", &digest]);
}

/// Serves an index; entries are (platform as JSON, manifest).
fn serve_index(server: &Server, entries: &[(&str, &str)], lie: bool) {
    let entries: Vec<String> = entries
        .iter()
        .map(|(platform, body)| {
            let digest = if lie {
                sha(b"lie")
            } else {
                sha(body.as_bytes())
            };
            let path = format!("/v2/app/manifests/{digest}");
            server.on(&path, [Answer::new(200, OCI_MANIFEST, *body)]);
            let size = body.len();
            format!(r#"{{"digest":"{digest}","size":{size},"platform":{platform}}}"#)
        })
        .collect();
    let body = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        entries.join(",")
    );
    server.on("/v2/app/manifests/1", [Answer::new(200, OCI_INDEX, body)]);
}

#[tokio::test]
async fn an_index_gives_the_image_of_the_platform() {
    let server = Server::start().await;
    let config = |name: &str| {
        format!(r#"{{"os":"linux","architecture":"{name}","rootfs":{{"diff_ids":[]}}}}"#)
    };
    let bodies = ["amd64", "arm64", "arm"].map(|name| {
        let config = config(name);
        server.on(&blob(config.as_bytes()), [answer(config.as_bytes())]);
        manifest(&config, &[])
    });
    let platforms = [
        r#"{"os":"linux","architecture":"amd64"}"#,
        r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#,
        r#"{"os":"linux","architecture":"arm","variant":"v6"}"#,
    ];
    let entries: Vec<(&str, &str)> = platforms
        .iter()
        .zip(&bodies)
        .map(|(p, b)| (*p, b.as_str()))
        .collect();
    serve_index(&server, &entries, false);
    let wishes = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
    for (wish, body) in wishes.iter().zip(&bodies) {
        let wish: Platform = wish.parse().unwrap();
        let resolved = client()
            .resolve(&server.reference(), Some(&wish))
            .await
            .unwrap();
        assert_eq!(resolved.manifest_digest, sha(body.as_bytes()), "{wish}");
        assert_eq!(resolved.manifest, body.as_bytes());
    }
    let wish: Platform = "linux/s390x".parse().unwrap();
    let text = client()
        .resolve(&server.reference(), Some(&wish))
        .await
        .unwrap_err()
        .to_string();
    assert_has(
        &text,
        &[
            "no image for linux/s390x",
            "linux/amd64, linux/arm64/v8, linux/arm/v6",
        ],
    );
}

#[tokio::test]
async fn an_index_that_lies_is_found_out() {
    let server = Server::start().await;
    let native = Platform::native();
    let platform = format!(
        r#"{{"os":"linux","architecture":"{}"}}"#,
        native.architecture
    );
    serve_index(&server, &[(&platform, &manifest("{}", &[]))], true);
    let text = pull(&server).await.unwrap_err().to_string();
    assert_has(&text, &["is corrupt"]);
}

#[tokio::test]
async fn a_lone_image_of_another_platform_is_refused_if_one_was_asked_for() {
    let server = Server::start().await;
    server.image(LAYER, None);
    let wish: Platform = "linux/s390x".parse().unwrap();
    let error = client()
        .resolve(&server.reference(), Some(&wish))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NoPlatform { .. }), "{error}");
}

#[tokio::test]
async fn refusals_name_host_status_and_object() {
    let server = Server::start().await;
    let text = pull(&server).await.unwrap_err().to_string();
    let host = server.address.as_str();
    assert_has(
        &text,
        &[host, "no manifest 1 (HTTP 404)", "manifest unknown"],
    );
    let text = manifest_error([Answer::new(403, "x/y", "")]).await;
    assert_has(&text, &["denies access (HTTP 403)", "auths"]);
    let text = manifest_error([Answer::new(418, "x/y", "")]).await;
    assert_has(&text, &["answered HTTP 418 for manifest 1"]);
    let escape = r#"{"errors":[{"message":"a\u001b[31mb"}]}"#;
    let text = manifest_error([Answer::new(418, "x/y", escape)]).await;
    assert_has(&text, &["a[31mb"]);
}

#[tokio::test]
async fn a_failing_server_is_asked_again_but_not_for_ever() {
    let server = Server::start().await;
    server.image(LAYER, None);
    let good = manifest("{}", &[]);
    let bad = Answer::new(503, "x/y", "");
    server.on(
        "/v2/app/manifests/1",
        [bad.clone(), Answer::new(200, OCI_MANIFEST, good)],
    );
    let text = pull(&server).await.unwrap_err().to_string();
    assert_has(&text, &["config", "404"]);
    let text = manifest_error([bad]).await;
    assert_has(&text, &["answered HTTP 503"]);
    let text = manifest_error([Answer::new(200, "x/y", "").how(How::Silent)]).await;
    assert_has(&text, &["sent nothing for"]);
}

#[tokio::test]
async fn nobody_listening_is_said() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let reference: Reference = format!("{address}/app").parse().unwrap();
    let text = client()
        .resolve(&reference, None)
        .await
        .unwrap_err()
        .to_string();
    assert_has(&text, &[&address.to_string(), "connection refused"]);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_said() {
    let reference: Reference = "registry.invalid/app".parse().unwrap();
    let text = client()
        .resolve(&reference, None)
        .await
        .unwrap_err()
        .to_string();
    if text.contains("cannot set up TLS") {
        println!("skipped: this machine has no CA certificates");
        return;
    }
    assert_has(&text, &["registry.invalid", "cannot be resolved"]);
}

#[tokio::test]
async fn a_token_is_fetched_once_and_sent() {
    let server = Server::start().await;
    server.image(LAYER, None);
    let challenge = format!(
        r#"Bearer realm="http://{}/token",service="s""#,
        server.address
    );
    let denied = Answer::new(401, "x/y", "").header("WWW-Authenticate", &challenge);
    let config_path = server.paths();
    assert!(config_path.is_empty());
    let body = r#"{"token":"secret"}"#;
    server.on("/token", [Answer::new(200, "application/json", body)]);
    let good = manifest("{}", &[]);
    server.on(
        "/v2/app/manifests/1",
        [denied.clone(), Answer::new(200, OCI_MANIFEST, good)],
    );
    let _ = pull(&server).await;
    let seen = server.seen.lock().unwrap().clone();
    let tokens = seen.iter().filter(|(path, _)| path == "/token").count();
    assert_eq!(tokens, 1);
    let (_, last) = seen.last().unwrap();
    assert_eq!(last["authorization"], "Bearer secret");
}

#[tokio::test]
async fn credentials_come_from_the_file() {
    let server = Server::start().await;
    server.image(LAYER, None);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#, server.address);
    std::fs::write(&file, auths).unwrap();
    let denied = Answer::new(401, "x/y", "").header("WWW-Authenticate", "Basic realm=\"r\"");
    server.on("/v2/app/manifests/1", [denied.clone(), denied]);
    let client = Registry::new(Config {
        auth_files: vec![file.clone()],
        ..Config::default()
    });
    let text = pull_with(&client, &server).await.unwrap_err().to_string();
    assert_has(&text, &["denies access (HTTP 401)"]);
    assert_eq!(
        server.seen.lock().unwrap()[1].1["authorization"],
        "Basic dTpw"
    );
    std::fs::write(&file, "{\"auths\": 7}").unwrap();
    let text = pull_with(&client, &server).await.unwrap_err().to_string();
    assert_has(&text, &["config.json: invalid JSON at line 1"]);
}
