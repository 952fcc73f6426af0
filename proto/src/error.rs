//! Every error of the API, in one table.
//!
//! The table below is the only definition of an error: it yields the variant of [`Error`], its wire
//! form `{"error": "io.rcd.Container.NoSuchContainer", "parameters": {…}}` in both directions, and
//! the `error` declarations of the interface descriptions ([`ROWS`]).
//!
//! Each error carries `message`, the complete text for people (what was tried, on what, why it
//! failed, what to do), beside typed fields for programs. A newer daemon may send errors that this
//! version does not know: they become [`Error::Unknown`], message kept.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zlink_core::idl::Type as IdlType;
use zlink_core::introspect::Type;

/// One line of the table of errors, for interface descriptions.
#[derive(Debug)]
pub struct ErrorRow {
    /// Full name: interface, dot, name.
    pub name: &'static str,
    /// Lines of its documentation.
    pub docs: &'static [&'static str],
    /// Its fields after `message`.
    pub fields: &'static [ErrorField],
}

/// A typed field of an error.
#[derive(Debug)]
pub struct ErrorField {
    /// Name in Rust, `snake_case`; on the wire it is camelCase.
    pub name: &'static str,
    /// Its type.
    pub ty: &'static IdlType<'static>,
    /// Lines of its documentation.
    pub docs: &'static [&'static str],
}

macro_rules! errors {
    ($(
        $(#[doc = $doc:literal])+
        $wire:literal $variant:ident { $( $(#[doc = $field_doc:literal])+ $field:ident: $ty:ty, )* }
    )+) => {
        /// An error of the API. See the [module](self).
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
        #[serde(tag = "error", content = "parameters", rename_all_fields = "camelCase")]
        pub enum Error {
            $(
                $(#[doc = $doc])+
                #[serde(rename = $wire)]
                #[error("{message}")]
                $variant {
                    /// Complete text for people.
                    #[serde(default)]
                    message: String,
                    $( $(#[doc = $field_doc])+ $field: $ty, )*
                },
            )+
            /// An error that this version does not know, from a newer daemon.
            #[serde(skip)]
            #[error("{message}")]
            Unknown {
                /// Complete text for people; the error's name if it brought none.
                message: String,
                /// Full name.
                name: String,
            },
        }

        impl Error {
            /// The text for people.
            pub fn message(&self) -> &str {
                match self {
                    $( Error::$variant { message, .. } )|+ | Error::Unknown { message, .. } => message,
                }
            }

            /// The full name on the wire.
            pub fn name(&self) -> &str {
                match self {
                    $( Error::$variant { .. } => $wire, )+
                    Error::Unknown { name, .. } => name,
                }
            }

            fn message_mut(&mut self) -> &mut String {
                match self {
                    $( Error::$variant { message, .. } )|+ | Error::Unknown { message, .. } => message,
                }
            }
        }

        /// The table, in the order of its definition.
        pub const ROWS: &[ErrorRow] = &[$(
            ErrorRow {
                name: $wire,
                docs: &[$($doc),+],
                fields: &[$(
                    ErrorField { name: stringify!($field), ty: <$ty as Type>::TYPE, docs: &[$($field_doc),+] },
                )*],
            },
        )+];
    };
}

errors! {
    /// No container has this name, id or prefix of an id.
    "io.rcd.Container.NoSuchContainer" NoSuchContainer {
        /// As asked.
        id: String,
    }
    /// A prefix fits more than one container.
    "io.rcd.Container.AmbiguousContainer" AmbiguousContainer {
        /// As asked.
        id: String,
        /// Ids that fit.
        candidates: Vec<String>,
    }
    /// Another container has this name.
    "io.rcd.Container.NameInUse" NameInUse {
        /// The name.
        name: String,
        /// Id of the container that has it.
        id: String,
    }
    /// The request needs a running container.
    "io.rcd.Container.NotRunning" NotRunning {
        /// Which container.
        id: String,
        /// Its state.
        state: String,
    }
    /// The container runs already.
    "io.rcd.Container.AlreadyRunning" AlreadyRunning {
        /// Which container.
        id: String,
    }
    /// The container's state forbids the request, such as removing a running one.
    "io.rcd.Container.InUse" InUse {
        /// Which container.
        id: String,
        /// Its state.
        state: String,
    }
    /// The container could not be started.
    "io.rcd.Container.StartFailed" StartFailed {
        /// Which container.
        id: String,
        /// 127: program not found; 126: not executable; 125: anything else.
        exit_code: i32,
    }
    /// A value of the configuration is wrong.
    "io.rcd.Container.InvalidConfig" InvalidConfig {
        /// Which field.
        field: String,
    }
    /// This host or this version cannot honour a setting; it is never ignored.
    "io.rcd.Container.NotSupported" NotSupported {
        /// Which setting.
        what: String,
    }
    /// No exec has this id; it may have ended a while ago.
    "io.rcd.Exec.NoSuchExec" NoSuchExec {
        /// As asked.
        id: String,
    }
    /// The program could not be run in the container.
    "io.rcd.Exec.ExecFailed" ExecFailed {
        /// Which container.
        container: String,
        /// 127: program not found; 126: not executable; 125: anything else.
        exit_code: i32,
    }
    /// No image has this reference, id or prefix of an id.
    "io.rcd.Image.NoSuchImage" NoSuchImage {
        /// As asked.
        reference: String,
    }
    /// A short name or a prefix fits more than one image.
    "io.rcd.Image.AmbiguousImage" AmbiguousImage {
        /// As asked.
        reference: String,
        /// Those that fit.
        candidates: Vec<String>,
    }
    /// The image cannot be removed while it is used.
    "io.rcd.Image.ImageInUse" ImageInUse {
        /// As asked.
        reference: String,
        /// Names of the containers that use it.
        containers: Vec<String>,
    }
    /// The image could not be fetched.
    "io.rcd.Image.PullFailed" PullFailed {
        /// Full reference.
        reference: String,
    }
    /// This is not an image reference.
    "io.rcd.Image.InvalidReference" InvalidReference {
        /// As given.
        reference: String,
    }
    /// The archive could not be imported.
    "io.rcd.Image.ImportFailed" ImportFailed {}
    /// The daemon failed; the message has the chain of causes.
    "io.rcd.System.Internal" Internal {}
    /// A bound was reached; try again later.
    "io.rcd.System.Busy" Busy {}
    /// This host lacks something that the request needs.
    "io.rcd.System.HostUnsupported" HostUnsupported {
        /// What is missing.
        what: String,
    }
    /// The interface has no such method.
    "org.varlink.service.MethodNotFound" MethodNotFound {
        /// Full name, as called.
        method: String,
    }
    /// The method exists and is not served here.
    "org.varlink.service.MethodNotImplemented" MethodNotImplemented {
        /// Full name, as called.
        method: String,
    }
    /// There is no such interface.
    "org.varlink.service.InterfaceNotFound" InterfaceNotFound {
        /// As called.
        interface: String,
    }
    /// A parameter is missing, unknown or of the wrong type, or the message is no call at all.
    "org.varlink.service.InvalidParameter" InvalidParameter {
        /// Path of the field, such as `config.binds[0].source`; empty if the message does not parse.
        parameter: String,
    }
    /// The caller may not do this.
    "org.varlink.service.PermissionDenied" PermissionDenied {}
    /// The method must be called with `more`.
    "org.varlink.service.ExpectedMore" ExpectedMore {}
}

impl Error {
    /// The JSON of the error: `{"error":…,"parameters":…}`. It is a complete varlink reply, and the
    /// content of an Error frame.
    pub fn to_wire(&self) -> String {
        if let Error::Unknown { message, name } = self {
            return serde_json::json!({ "error": name, "parameters": { "message": message } })
                .to_string();
        }
        // Strings, numbers and lists of strings always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The error that a reply names. `parameters` is what came with it.
    pub fn from_wire(name: &str, parameters: Option<&RawValue>) -> Error {
        let wire = Wire {
            error: Cow::Borrowed(name),
            parameters,
        };
        let parsed = serde_json::to_string(&wire)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok());
        let mut error = parsed.unwrap_or_else(|| Error::Unknown {
            message: message_of(parameters).unwrap_or_default(),
            name: name.to_owned(),
        });
        if error.message().is_empty() {
            *error.message_mut() = name.to_owned();
        }
        error
    }

    /// The error in the content of an Error frame. Anything else becomes [`Error::Unknown`].
    pub fn from_json(content: &[u8]) -> Error {
        match serde_json::from_slice::<Wire<'_>>(content) {
            Ok(wire) => Error::from_wire(&wire.error, wire.parameters),
            Err(_) => Error::Unknown {
                message: format!(
                    "the daemon sent an error that cannot be read: {}",
                    String::from_utf8_lossy(content)
                ),
                name: String::new(),
            },
        }
    }
}

/// An error in its wire form, unchecked.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    error: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a RawValue>,
}

fn message_of(parameters: Option<&RawValue>) -> Option<String> {
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    serde_json::from_str::<Message>(parameters?.get())
        .ok()
        .map(|parsed| parsed.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        let error = Error::StartFailed {
            message: "cannot start x: no such file".into(),
            id: "x".into(),
            exit_code: 127,
        };
        let text = error.to_wire();
        assert_eq!(
            text,
            r#"{"error":"io.rcd.Container.StartFailed","parameters":{"message":"cannot start x: no such file","id":"x","exitCode":127}}"#
        );
        assert_eq!(Error::from_json(text.as_bytes()), error);
        assert_eq!(error.to_string(), error.message());
    }

    #[test]
    fn errors_without_fields_survive_the_wire() {
        let error = Error::Internal {
            message: "boom".into(),
        };
        assert_eq!(Error::from_json(error.to_wire().as_bytes()), error);
    }

    #[test]
    fn an_unknown_error_keeps_its_message_and_a_bare_one_shows_its_name() {
        let newer = Error::from_json(
            br#"{"error":"io.rcd.Net.Gone","parameters":{"message":"gone","x":1}}"#,
        );
        assert_eq!(
            newer,
            Error::Unknown {
                message: "gone".into(),
                name: "io.rcd.Net.Gone".into()
            }
        );
        assert_eq!(Error::from_json(newer.to_wire().as_bytes()), newer);
        let bare = Error::from_json(
            br#"{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"a.B"}}"#,
        );
        assert_eq!(bare.message(), "org.varlink.service.MethodNotFound");
        assert!(matches!(bare, Error::MethodNotFound { .. }));
    }

    #[test]
    fn garbage_is_an_error_too() {
        for garbage in [&b""[..], b"\xff", b"[]", b"{}", br#"{"error":1}"#] {
            assert!(matches!(Error::from_json(garbage), Error::Unknown { .. }));
        }
    }

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
    }
}
