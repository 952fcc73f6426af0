//! Varlink messages: JSON objects, each ended by a NUL byte.
//!
//! A call is `{"method", "parameters", "more", "oneway", "upgrade"}`, a reply `{"parameters",
//! "continues"}` or `{"error", "parameters"}`. [`Messages`] cuts a byte stream into messages,
//! [`Call::parse`] and [`decode`] read them, [`encode_call`] and [`encode_reply`] write them.
//!
//! Nothing here panics, and no input ends a connection: whatever does not parse is an
//! [`Error::InvalidParameter`] that names the field, a message that is too long is skipped to its
//! end. Absent and null mean the same for `parameters`, `more`, `oneway`, `upgrade` and every
//! optional field.
//!
//! **Unknown fields** in parameters are refused, with the field's path: a setting that an older
//! daemon does not know must not be ignored. Unknown fields in replies, and beside `method`, are
//! ignored, so that an older client understands a newer daemon.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Error;

/// The longest message in bytes, its NUL included.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Capacity that a buffer of messages keeps between messages. One long message does not hold its
/// memory for the life of the connection.
const KEEP_BYTES_MAX: usize = 256 << 10;

/// A method call as it came.
#[derive(Debug)]
pub struct Call<'a> {
    /// Full name.
    pub method: Cow<'a, str>,
    /// JSON of the parameters; none if absent or null.
    pub parameters: Option<&'a RawValue>,
    /// The caller wants no reply.
    pub oneway: bool,
    /// The caller takes more than one reply.
    pub more: bool,
    /// The connection shall belong to the method after its reply.
    pub upgrade: bool,
}

impl<'a> Call<'a> {
    /// Reads a call from a message without its NUL.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidParameter`] if it is not JSON, or not a call.
    pub fn parse(message: &'a [u8]) -> Result<Call<'a>, Error> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            method: Cow<'a, str>,
            #[serde(borrow)]
            parameters: Option<&'a RawValue>,
            oneway: Option<bool>,
            more: Option<bool>,
            upgrade: Option<bool>,
        }
        let raw: Raw<'a> =
            serde_json::from_slice(message).map_err(|error| Error::InvalidParameter {
                message: format!("the message is no method call: {error}"),
                parameter: String::new(),
            })?;
        Ok(Call {
            method: raw.method,
            parameters: raw
                .parameters
                .filter(|parameters| parameters.get() != "null"),
            oneway: raw.oneway.unwrap_or(false),
            more: raw.more.unwrap_or(false),
            upgrade: raw.upgrade.unwrap_or(false),
        })
    }
}

/// How a client calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// One reply.
    #[default]
    Once,
    /// Replies until one says that no more will come.
    More,
    /// No reply.
    Oneway,
    /// One reply, then the connection belongs to the method.
    Upgrade,
}

/// Appends a call, NUL included, to `out`.
///
/// # Errors
///
/// Those of serde: a map whose keys are not strings. No type of [`crate::types`] has one.
pub fn encode_call(
    method: &str,
    parameters: &impl Serialize,
    mode: Mode,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    #[derive(Serialize)]
    struct Raw<'a, P> {
        method: &'a str,
        parameters: &'a P,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        oneway: bool,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        more: bool,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        upgrade: bool,
    }
    let raw = Raw {
        method,
        parameters,
        oneway: mode == Mode::Oneway,
        more: mode == Mode::More,
        upgrade: mode == Mode::Upgrade,
    };
    let before = out.len();
    if let Err(error) = serde_json::to_writer(&mut *out, &raw) {
        out.truncate(before);
        return Err(error);
    }
    out.push(0);
    Ok(())
}

/// Appends a reply, NUL included, to `out`. `parameters` is JSON.
pub fn encode_reply(parameters: &RawValue, continues: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"parameters":"#);
    out.extend_from_slice(parameters.get().as_bytes());
    if continues {
        out.extend_from_slice(br#","continues":true"#);
    }
    out.extend_from_slice(b"}\0");
}

/// Appends an error reply, NUL included, to `out`.
pub fn encode_error(error: &Error, out: &mut Vec<u8>) {
    out.extend_from_slice(error.to_wire().as_bytes());
    out.push(0);
}

/// A reply as it came.
#[derive(Debug)]
pub struct Reply<'a> {
    /// What was asked for, or the error.
    result: Result<Option<&'a RawValue>, Error>,
    /// More replies to the same call will come.
    pub continues: bool,
}

impl<'a> Reply<'a> {
    /// Reads a reply from a message without its NUL.
    ///
    /// # Errors
    ///
    /// Those of serde, if it is not a reply.
    pub fn parse(message: &'a [u8]) -> Result<Reply<'a>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            parameters: Option<&'a RawValue>,
            continues: Option<bool>,
            #[serde(borrow)]
            error: Option<Cow<'a, str>>,
        }
        let raw: Raw<'a> = serde_json::from_slice(message)?;
        let result = match raw.error {
            Some(name) => Err(Error::from_wire(&name, raw.parameters)),
            None => Ok(raw.parameters),
        };
        Ok(Reply {
            result,
            continues: raw.continues.unwrap_or(false),
        })
    }

    /// The typed value of the reply.
    ///
    /// # Errors
    ///
    /// The error that the reply carries; [`Error::Internal`] if the value is not of this type.
    pub fn into_result<T: DeserializeOwned>(self) -> Result<T, Error> {
        let parameters = self.result?.map_or("{}", RawValue::get);
        serde_json::from_str(parameters).map_err(|error| Error::Internal {
            message: format!(
                "the daemon's reply cannot be read, it may be of another version: {error}"
            ),
        })
    }
}

/// Reads the parameters of `method`. See the [module](self) about unknown fields.
///
/// # Errors
///
/// [`Error::InvalidParameter`] with the path of the field.
pub fn decode<T: DeserializeOwned>(
    method: &str,
    parameters: Option<&RawValue>,
) -> Result<T, Error> {
    let text = parameters.map_or("{}", RawValue::get);
    if !text.starts_with('{') {
        // serde would take an array for the fields in order.
        return Err(invalid_parameter(method, ".", "expected an object"));
    }
    let mut unknown = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let mut ignored = |path: serde_ignored::Path<'_>| {
        unknown.get_or_insert_with(|| path_of(&path));
    };
    let checked = serde_ignored::Deserializer::new(&mut json, &mut ignored);
    let value = serde_path_to_error::deserialize(checked).map_err(|error| {
        let path = error.path().to_string();
        invalid_parameter(method, &path, &error.into_inner().to_string())
    })?;
    match unknown {
        None => Ok(value),
        Some(path) => Err(Error::InvalidParameter {
            message: format!(
                "{method}: unknown parameter {path:?}; check its spelling, or whether the daemon is older than the client"
            ),
            parameter: path,
        }),
    }
}

/// Writes a path as serde_path_to_error does: `config.binds[0].source`.
fn path_of(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", path_of(parent)),
        Path::Map { parent, key } => match path_of(parent) {
            before if before.is_empty() => key.clone(),
            before => format!("{before}.{key}"),
        },
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => path_of(parent),
    }
}

/// Turns serde's words into an error that names the field.
fn invalid_parameter(method: &str, path: &str, words: &str) -> Error {
    // serde_json appends a position, which says nothing about a message that a program wrote.
    let words = words
        .rsplit_once(" at line ")
        .map_or(words, |(before, _)| before);
    let parent = if path == "." { "" } else { path };
    let missing = words
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'));
    let parameter = match (parent, missing) {
        (parent, None) => parent.to_owned(),
        ("", Some(field)) => field.to_owned(),
        (parent, Some(field)) => format!("{parent}.{field}"),
    };
    let message = match (missing, parameter.as_str()) {
        (Some(_), parameter) => format!("{method}: parameter {parameter} is missing"),
        (None, "") => format!("{method}: the parameters are wrong: {words}"),
        (None, parameter) => format!("{method}: parameter {parameter} is wrong: {words}"),
    };
    Error::InvalidParameter { message, parameter }
}

/// A message was longer than [`MESSAGE_BYTES_MAX`]. It was skipped; the next one is intact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message is longer than {} MiB", MESSAGE_BYTES_MAX >> 20)]
pub struct TooLong;

/// Bytes in, messages out.
///
/// Holds at most [`MESSAGE_BYTES_MAX`] and the bytes of the last [`Messages::extend`], if its owner
/// takes all messages before it adds more.
#[derive(Debug, Default)]
pub struct Messages {
    buffer: Vec<u8>,
    /// Bytes before this one were given out.
    taken: usize,
    /// Bytes before this one hold no NUL, so that a long message is scanned once.
    scanned: usize,
    /// The rest of a message that is too long is being dropped.
    skipping: bool,
}

impl Messages {
    /// Adds bytes as they came.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.scanned -= self.taken;
        self.taken = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BYTES_MAX {
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message without its NUL, or none until more bytes come.
    ///
    /// # Errors
    ///
    /// [`TooLong`], once, when the end of such a message has been found.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let unscanned = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(offset) = unscanned.iter().position(|byte| *byte == 0) else {
            self.scanned = self.buffer.len();
            if self.skipping || self.buffer.len() - self.taken >= MESSAGE_BYTES_MAX {
                self.skipping = true;
                self.buffer.clear();
                (self.taken, self.scanned) = (0, 0);
            }
            return Ok(None);
        };
        let (start, end) = (self.taken, self.scanned + offset);
        (self.taken, self.scanned) = (end + 1, end + 1);
        if std::mem::take(&mut self.skipping) || end - start >= MESSAGE_BYTES_MAX {
            return Err(TooLong);
        }
        Ok(self.buffer.get(start..end))
    }

    /// Whether a whole message waits to be taken.
    pub fn has_message(&self) -> bool {
        self.buffer
            .get(self.scanned..)
            .unwrap_or_default()
            .contains(&0)
    }

    /// Bytes that wait to be taken.
    pub fn waiting_bytes(&self) -> usize {
        self.buffer.len() - self.taken
    }

    /// The bytes after the last message, for the owner of an upgraded connection.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.buffer.drain(..self.taken);
        self.buffer
    }
}

#[cfg(test)]
mod tests;
