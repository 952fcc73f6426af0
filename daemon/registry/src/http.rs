//! Requests to a registry: which transport, credentials, redirects, retries, bounded answers.
//!
//! ```text
//!   open ─► for each endpoint (https, http where allowed) ─► follow ─► send
//!              401: challenge ─► token ─► once more         redirects, ≤ 5, checked
//! ```
//! Credentials go to the registry and to the token server that it names, never along a redirect to
//! another host. A redirect neither leaves TLS nor leads from a foreign registry to this machine's
//! loopback services.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RANGE, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use crate::auth::{self, Challenge, Credentials};
use crate::config::{Config, is_loopback};
use crate::failure::{Subject, broken, is_transient, protocol, registry_message, unreachable};
use crate::{Error, Reference};

/// Connections made for one object without progress before it is given up.
pub(crate) const ATTEMPTS_MAX: u32 = 5;

/// Redirects followed for one request. Blobs take one.
const REDIRECTS_MAX: usize = 5;

/// Largest answer of a token server in bytes.
const TOKEN_BYTES_MAX: u64 = 1 << 20;

/// How much of an error's body is read, in bytes.
const ERROR_BYTES_MAX: u64 = 16 << 10;

/// Repositories whose authorization is remembered.
const AUTHORIZATIONS_MAX: usize = 256;

/// A path within a repository, and how to ask for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// Such as `manifests/latest`.
    pub(crate) path: &'a str,
    /// Media types wanted.
    pub(crate) accept: &'a [&'a str],
    /// First byte wanted.
    pub(crate) offset: u64,
}

/// How the server is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Verified,
    Unverified,
    Plain,
}

/// Clients and what was learnt about registries. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) config: Arc<Config>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Built when first used: reading the machine's CA certificates takes milliseconds.
    verified: OnceLock<Client>,
    unverified: OnceLock<Client>,
    plain: OnceLock<Client>,
    /// `Authorization` headers by registry and repository.
    authorizations: Mutex<HashMap<String, HeaderValue>>,
}

impl Http {
    pub(crate) fn new(config: Config) -> Self {
        // Fails only if there is one already, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            config: Arc::new(config),
            shared: Arc::default(),
        }
    }

    /// Asks for an object until the answer's headers are there, with success.
    pub(crate) async fn open(
        &self,
        subject: &Subject,
        request: Request<'_>,
    ) -> Result<Response, Error> {
        let mut last = None;
        for transport in self.transports(subject.reference.host()) {
            match self.retry(subject, request, *transport).await {
                // The next transport may be the one that the server speaks.
                Err(error @ (Error::Unreachable { .. } | Error::Broken { .. })) => {
                    last.get_or_insert(error);
                }
                result => return result,
            }
        }
        Err(last.unwrap_or_else(|| protocol(subject, "no transport is allowed")))
    }

    /// A small object as a whole; broken transfers start again.
    pub(crate) async fn fetch(
        &self,
        subject: &Subject,
        request: Request<'_>,
        bytes_max: u64,
    ) -> Result<(Bytes, String), Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let response = self.open(subject, request).await?;
            let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
            let content_type = content_type
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default();
            let content_type = content_type
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned();
            match self.body(subject, response, bytes_max).await {
                Err(error @ (Error::Broken { .. } | Error::Stalled { .. })) => {
                    if attempts >= ATTEMPTS_MAX {
                        return Err(error);
                    }
                    self.back_off(attempts).await;
                }
                result => return result.map(|bytes| (bytes, content_type)),
            }
        }
    }

    /// Waits before attempt number `attempts + 1`.
    pub(crate) async fn back_off(&self, attempts: u32) {
        let factor = 1 << attempts.saturating_sub(1).min(ATTEMPTS_MAX);
        tokio::time::sleep(self.config.timeouts.backoff * factor).await;
    }

    fn transports(&self, host: &str) -> &'static [Transport] {
        if self.config.is_insecure(host) {
            &[Transport::Unverified, Transport::Plain]
        } else if is_loopback(host) {
            &[Transport::Plain, Transport::Unverified]
        } else {
            &[Transport::Verified]
        }
    }

    /// Repeats what a busy or broken server refused.
    async fn retry(
        &self,
        subject: &Subject,
        request: Request<'_>,
        transport: Transport,
    ) -> Result<Response, Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match self.authorized(subject, request, transport).await {
                Err(error) if is_transient(&error) => error,
                result => return result,
            };
            if attempts >= ATTEMPTS_MAX {
                return Err(error);
            }
            tracing::debug!(image.reference = %subject.reference, %error, "retrying");
            self.back_off(attempts).await;
        }
    }

    /// One request, and a second one if the first was answered with a challenge.
    async fn authorized(
        &self,
        subject: &Subject,
        request: Request<'_>,
        transport: Transport,
    ) -> Result<Response, Error> {
        let reference = &subject.reference;
        let scheme = if transport == Transport::Plain {
            "http"
        } else {
            "https"
        };
        let (host, repository) = (reference.host(), reference.repository());
        let url = format!("{scheme}://{host}/v2/{repository}/{}", request.path);
        let url = Url::parse(&url).map_err(|e| protocol(subject, &format!("{url}: {e}")))?;
        let key = format!("{scheme}://{host}/{repository}");
        let known = self.authorizations().get(&key).cloned();
        let response = self
            .follow(subject, request, url.clone(), known.as_ref())
            .await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.check(subject, response).await;
        }
        let Some(authorization) = self.answer_challenge(subject, &response).await? else {
            return self.check(subject, response).await;
        };
        {
            let mut authorizations = self.authorizations();
            if authorizations.len() >= AUTHORIZATIONS_MAX {
                authorizations.clear();
            }
            authorizations.insert(key, authorization.clone());
        }
        let response = self
            .follow(subject, request, url, Some(&authorization))
            .await?;
        self.check(subject, response).await
    }

    /// Sends a request and follows redirects.
    async fn follow(
        &self,
        subject: &Subject,
        request: Request<'_>,
        mut url: Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Error> {
        let origin = url.origin();
        for _ in 0..=REDIRECTS_MAX {
            let mut builder = self
                .get(subject, &url)?
                .header(ACCEPT, request.accept.join(", "));
            if request.offset > 0 {
                builder = builder.header(RANGE, format!("bytes={}-", request.offset));
            }
            if let Some(authorization) = authorization.filter(|_| url.origin() == origin) {
                builder = builder.header(AUTHORIZATION, authorization);
            }
            let response = self.send(subject, builder).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|v| v.to_str().ok());
            let location = location.ok_or_else(|| protocol(subject, "redirect to nowhere"))?;
            let next = url.join(location);
            let next = next.map_err(|e| protocol(subject, &format!("redirect: {e}")))?;
            self.check_destination(subject, &next)?;
            url = next;
        }
        Err(protocol(
            subject,
            &format!("more than {REDIRECTS_MAX} redirects"),
        ))
    }

    /// Judges a URL that the registry named.
    fn check_destination(&self, subject: &Subject, url: &Url) -> Result<(), Error> {
        let host = host_and_port(url);
        if is_loopback(&host) && !is_loopback(subject.reference.host()) {
            return Err(protocol(
                subject,
                &format!("it points to this machine ({host})"),
            ));
        }
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.config.allows_plain(&host) => Ok(()),
            "http" => Err(protocol(
                subject,
                &format!("it points to {host} without TLS (list it as insecure to allow that)"),
            )),
            scheme => Err(protocol(
                subject,
                &format!("it points to a URL of scheme {scheme}"),
            )),
        }
    }

    /// A request to a URL, by the client that its scheme and host call for.
    fn get(&self, subject: &Subject, url: &Url) -> Result<RequestBuilder, Error> {
        let host = host_and_port(url);
        let transport = match url.scheme() {
            "http" => Transport::Plain,
            _ if self.config.allows_plain(&host) => Transport::Unverified,
            _ => Transport::Verified,
        };
        tracing::trace!(image.reference = %subject.reference, %url, "request");
        Ok(self.client(transport)?.get(url.clone()))
    }

    fn client(&self, transport: Transport) -> Result<&Client, Error> {
        let cell = match transport {
            Transport::Verified => &self.shared.verified,
            Transport::Unverified => &self.shared.unverified,
            Transport::Plain => &self.shared.plain,
        };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let builder = Client::builder()
            .user_agent(concat!("rcd/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.config.timeouts.connect);
        let builder = match transport {
            Transport::Verified => builder,
            // No certificate is looked at, so none of the machine's is needed.
            Transport::Unverified => builder.tls_danger_accept_invalid_certs(true),
            Transport::Plain => builder.tls_certs_only([]).no_proxy(),
        };
        let client = builder
            .build()
            .map_err(|source| Error::TlsSetup { source })?;
        Ok(cell.get_or_init(|| client))
    }

    async fn send(&self, subject: &Subject, builder: RequestBuilder) -> Result<Response, Error> {
        match tokio::time::timeout(self.config.timeouts.stall, builder.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) if source.is_connect() => Err(unreachable(subject, source)),
            Ok(Err(source)) => Err(broken(subject, 1, Some(source))),
            Err(_) => Err(self.stalled(subject)),
        }
    }

    /// An answer of success, or the error that it is.
    async fn check(&self, subject: &Subject, response: Response) -> Result<Response, Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // The words are an extra: without them the status says enough.
        let body = self
            .body(subject, response, ERROR_BYTES_MAX)
            .await
            .unwrap_or_default();
        let message = registry_message(&body);
        let Subject { reference, object } = subject.clone();
        let host = reference.host().to_owned();
        Err(match status {
            StatusCode::NOT_FOUND => Error::NotFound {
                reference,
                host,
                object,
                message,
            },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Unauthorized {
                reference,
                host,
                status: status.as_u16(),
                message,
            },
            _ => Error::Status {
                reference,
                host,
                object,
                status: status.as_u16(),
                message,
            },
        })
    }

    /// Reads an answer's body up to a bound.
    async fn body(
        &self,
        subject: &Subject,
        mut response: Response,
        bytes_max: u64,
    ) -> Result<Bytes, Error> {
        let mut body = BytesMut::new();
        loop {
            match tokio::time::timeout(self.config.timeouts.stall, response.chunk()).await {
                Err(_) => return Err(self.stalled(subject)),
                Ok(Err(source)) => return Err(broken(subject, ATTEMPTS_MAX, Some(source))),
                Ok(Ok(None)) => return Ok(body.freeze()),
                Ok(Ok(Some(chunk))) => {
                    if (body.len() + chunk.len()) as u64 > bytes_max {
                        let Subject { reference, object } = subject.clone();
                        return Err(Error::TooLarge {
                            reference,
                            object,
                            bytes_max,
                        });
                    }
                    body.extend_from_slice(&chunk);
                }
            }
        }
    }

    /// What to send after a 401; nothing if the challenge cannot be met.
    async fn answer_challenge(
        &self,
        subject: &Subject,
        response: &Response,
    ) -> Result<Option<HeaderValue>, Error> {
        let header = response
            .headers()
            .get(WWW_AUTHENTICATE)
            .and_then(|v| v.to_str().ok());
        let Some(challenge) = header.and_then(auth::challenge) else {
            return Ok(None);
        };
        let credentials = self.credentials(&subject.reference).await?;
        match challenge {
            Challenge::Basic => Ok(credentials.as_ref().and_then(basic)),
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                let base = response.url();
                let realm = base
                    .join(&realm)
                    .map_err(|e| protocol(subject, &e.to_string()))?;
                self.token(subject, realm, service, scope, credentials)
                    .await
                    .map(Some)
            }
        }
    }

    /// Fetches a token for pulling from the repository.
    async fn token(
        &self,
        subject: &Subject,
        mut realm: Url,
        service: Option<String>,
        scope: Option<String>,
        credentials: Option<Credentials>,
    ) -> Result<HeaderValue, Error> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let reference = subject.reference.clone();
        let subject = Subject {
            reference,
            object: "a token".to_owned(),
        };
        self.check_destination(&subject, &realm)?;
        let scope =
            scope.unwrap_or_else(|| format!("repository:{}:pull", subject.reference.repository()));
        realm.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = service {
            realm.query_pairs_mut().append_pair("service", &service);
        }
        let mut builder = self.get(&subject, &realm)?;
        if let Some(authorization) = credentials.as_ref().and_then(basic) {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        let response = self.send(&subject, builder).await?;
        let response = self.check(&subject, response).await?;
        let body = self.body(&subject, response, TOKEN_BYTES_MAX).await?;
        let token: Token = serde_json::from_slice(&body)
            .map_err(|_| protocol(&subject, "it is not the JSON of a token"))?;
        let token = token
            .token
            .or(token.access_token)
            .filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| protocol(&subject, "it holds no token"))?;
        secret_header(&format!("Bearer {token}"))
            .ok_or_else(|| protocol(&subject, "the token does not fit into a header"))
    }

    async fn credentials(&self, reference: &Reference) -> Result<Option<Credentials>, Error> {
        let config = Arc::clone(&self.config);
        let (registry, repository) = (
            reference.registry().to_owned(),
            reference.repository().to_owned(),
        );
        let lookup = move || auth::lookup(&config.auth_files, &registry, &repository);
        // A runtime that shuts down cancels the reading; the pull ends with it.
        tokio::task::spawn_blocking(lookup)
            .await
            .unwrap_or(Ok(None))
    }

    fn authorizations(&self) -> std::sync::MutexGuard<'_, HashMap<String, HeaderValue>> {
        self.shared
            .authorizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stalled(&self, subject: &Subject) -> Error {
        let Subject { reference, object } = subject.clone();
        let (host, seconds) = (
            reference.host().to_owned(),
            self.config.timeouts.stall.as_secs(),
        );
        Error::Stalled {
            reference,
            host,
            object,
            seconds,
        }
    }
}

/// `host[:port]` of a URL.
fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Basic authorization (RFC 7617).
fn basic(credentials: &Credentials) -> Option<HeaderValue> {
    let pair = format!("{}:{}", credentials.username, credentials.password);
    secret_header(&format!("Basic {}", auth::encode_base64(pair.as_bytes())))
}

/// A header value that debug output hides.
fn secret_header(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
