//! The shape of a method table, and calling a method by name.
//!
//! `interface!` (used in [`crate::api`]) turns one list of methods into three things:
//!
//! - a trait with an async function per method, which the daemon implements,
//! - an [`Interface`]: names, comments, kinds and types, from which [`crate::idl`] prints,
//! - a [`Row`] per method: its description and a function that takes the method's parameters as
//!   JSON and gives its reply as JSON, whatever their types.
//!
//! A protocol is an adapter over the rows: it finds one by name ([`Table::find`]), calls it and
//! writes the [`Outcome`] down in its own framing. Nothing here knows varlink's framing.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use zlink_core::idl::CustomType;

use crate::Error;

/// How a method answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With one reply.
    Once,
    /// With several, until one that is the last.
    Stream,
    /// With one reply, after which the connection carries frames.
    Upgrade,
}

/// The description of a method.
#[derive(Debug)]
pub struct Method {
    /// Full name: interface, dot, name.
    pub name: &'static str,
    /// Lines of its documentation.
    pub docs: &'static [&'static str],
    /// How it answers.
    pub kind: Kind,
    /// Its parameters; always an object.
    pub input: &'static CustomType<'static>,
    /// Its reply; always an object.
    pub output: &'static CustomType<'static>,
}

/// The description of an interface.
#[derive(Debug)]
pub struct Interface {
    /// Full name.
    pub name: &'static str,
    /// Lines of its documentation.
    pub docs: &'static [&'static str],
    /// Named types that its methods use, parameters and replies themselves left out.
    pub types: &'static [&'static CustomType<'static>],
    /// Its methods.
    pub methods: &'static [Method],
}

/// What implements the API, whichever interfaces it has.
pub trait Server: Send + Sync + 'static {
    /// What takes a connection over after the reply of an [`Kind::Upgrade`] method.
    type Session: Send + 'static;
}

/// One reply of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<T> {
    /// Others will follow.
    More(T),
    /// The last one. Saying so beats looking ahead, which would hold every reply back until the
    /// next one exists.
    Last(T),
}

/// The replies of a stream. One that ends without [`Item::Last`] was cut off.
pub type ItemStream<T> = Pin<Box<dyn Stream<Item = Result<Item<T>, Error>> + Send>>;

/// A future that a row gives.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a call led to. Replies are JSON objects.
pub enum Outcome<S> {
    /// The one reply.
    Reply(Box<RawValue>),
    /// Replies to come.
    Stream(ItemStream<Box<RawValue>>),
    /// A reply, and what takes the connection over once it is sent.
    Upgrade(Box<RawValue>, S),
}

/// One method, callable without knowing its types. Dropping the future cancels the call.
pub struct Row<A: Server> {
    /// Its description.
    pub method: &'static Method,
    /// Decodes parameters, calls, encodes the reply.
    pub call: Invoke<A>,
}

/// Decodes parameters, calls a method of a server, encodes the reply.
pub type Invoke<A> =
    fn(Arc<A>, Option<&RawValue>) -> BoxFuture<Result<Outcome<<A as Server>::Session>, Error>>;

/// The kinds as types: what a method of each kind returns in Rust, and how that is erased.
pub trait MethodKind {
    /// The kind.
    const KIND: Kind;
    /// What the trait's function returns beside errors.
    type Returns<T: Serialize + Send + 'static, S: Send + 'static>: Send;
    /// Serialises.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if the reply does not serialise.
    fn erase<T: Serialize + Send + 'static, S: Send + 'static>(
        value: Self::Returns<T, S>,
    ) -> Result<Outcome<S>, Error>;
}

/// See [`Kind::Once`].
#[derive(Debug)]
pub struct Once;

/// See [`Kind::Stream`].
#[derive(Debug)]
pub struct Streaming;

/// See [`Kind::Upgrade`].
#[derive(Debug)]
pub struct Upgrade;

impl MethodKind for Once {
    const KIND: Kind = Kind::Once;
    type Returns<T: Serialize + Send + 'static, S: Send + 'static> = T;
    fn erase<T: Serialize + Send + 'static, S: Send + 'static>(
        value: T,
    ) -> Result<Outcome<S>, Error> {
        Ok(Outcome::Reply(serialise(&value)?))
    }
}

impl MethodKind for Streaming {
    const KIND: Kind = Kind::Stream;
    type Returns<T: Serialize + Send + 'static, S: Send + 'static> = ItemStream<T>;
    fn erase<T: Serialize + Send + 'static, S: Send + 'static>(
        items: ItemStream<T>,
    ) -> Result<Outcome<S>, Error> {
        Ok(Outcome::Stream(Box::pin(Serialised { items })))
    }
}

impl MethodKind for Upgrade {
    const KIND: Kind = Kind::Upgrade;
    type Returns<T: Serialize + Send + 'static, S: Send + 'static> = (T, S);
    fn erase<T: Serialize + Send + 'static, S: Send + 'static>(
        (value, session): (T, S),
    ) -> Result<Outcome<S>, Error> {
        Ok(Outcome::Upgrade(serialise(&value)?, session))
    }
}

/// A stream whose items are serialised as they pass.
struct Serialised<T> {
    items: ItemStream<T>,
}

impl<T: Serialize> Stream for Serialised<T> {
    type Item = Result<Item<Box<RawValue>>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.as_mut().poll_next(context).map(|item| {
            item.map(|item| match item? {
                Item::More(value) => serialise(&value).map(Item::More),
                Item::Last(value) => serialise(&value).map(Item::Last),
            })
        })
    }
}

fn serialise(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|error| Error::Internal {
        message: format!("the reply does not serialise: {error}"),
    })
}

/// All methods of a server, by name.
pub struct Table<A: Server> {
    rows: HashMap<&'static str, Row<A>>,
    interfaces: &'static [&'static Interface],
}

impl<A: Server> Table<A> {
    /// Makes a table of `rows`, which belong to `interfaces`.
    pub fn new(
        interfaces: &'static [&'static Interface],
        rows: impl IntoIterator<Item = Row<A>>,
    ) -> Table<A> {
        let rows = rows.into_iter().map(|row| (row.method.name, row)).collect();
        Table { rows, interfaces }
    }

    /// The row of a method.
    ///
    /// # Errors
    ///
    /// [`Error::MethodNotFound`], or [`Error::InterfaceNotFound`] if not even the interface exists.
    pub fn find(&self, method: &str) -> Result<&Row<A>, Error> {
        if let Some(row) = self.rows.get(method) {
            return Ok(row);
        }
        let interface = method
            .rsplit_once('.')
            .map_or("", |(interface, _)| interface);
        if self.interfaces.iter().any(|known| known.name == interface) {
            return Err(Error::MethodNotFound {
                message: format!(
                    "interface {interface} has no method {method:?}; the daemon may be older than the client"
                ),
                method: method.to_owned(),
            });
        }
        Err(interface_not_found(interface))
    }
}

/// The error about an interface that does not exist.
pub(crate) fn interface_not_found(interface: &str) -> Error {
    Error::InterfaceNotFound {
        message: format!(
            "no such interface: {interface:?}; org.varlink.service.GetInfo lists those that exist"
        ),
        interface: interface.to_owned(),
    }
}

/// Declares an interface. See the [module](self).
macro_rules! interface {
    (
        $(#[doc = $doc:literal])+
        interface $name:literal, trait $api:ident, static $static:ident, rows $rows:ident,
        types [$($custom:ty),* $(,)?];
        $(
            $(#[doc = $method_doc:literal])+
            $kind:ident $method:ident $function:ident($input:ty) -> $output:ty;
        )+
    ) => {
        $(#[doc = $doc])+
        pub trait $api: $crate::table::Server {
            $(
                $(#[doc = $method_doc])+
                fn $function(
                    &self,
                    parameters: $input,
                ) -> impl Future<
                    Output = Result<
                        <$crate::table::$kind as $crate::table::MethodKind>::Returns<$output, Self::Session>,
                        $crate::Error,
                    >,
                > + Send;
            )+
        }

        #[doc = concat!("The description of `", $name, "`.")]
        pub static $static: $crate::table::Interface = $crate::table::Interface {
            name: $name,
            docs: &[$($doc),+],
            types: &[$(<$custom as zlink_core::introspect::CustomType>::CUSTOM_TYPE),*],
            methods: &[$(
                $crate::table::Method {
                    name: concat!($name, ".", stringify!($method)),
                    docs: &[$($method_doc),+],
                    kind: <$crate::table::$kind as $crate::table::MethodKind>::KIND,
                    input: <$input as zlink_core::introspect::CustomType>::CUSTOM_TYPE,
                    output: <$output as zlink_core::introspect::CustomType>::CUSTOM_TYPE,
                },
            )+],
        };

        #[doc = concat!("The methods of `", $name, "`, callable.")]
        pub fn $rows<A: $api>() -> Vec<$crate::table::Row<A>> {
            let calls: Vec<$crate::table::Invoke<A>> = vec![$(
                |server, parameters| {
                    let name = concat!($name, ".", stringify!($method));
                    let parameters = $crate::wire::decode::<$input>(name, parameters);
                    Box::pin(async move {
                        let value = server.$function(parameters?).await?;
                        <$crate::table::$kind as $crate::table::MethodKind>::erase::<$output, A::Session>(value)
                    })
                },
            )+];
            let rows = $static.methods.iter().zip(calls);
            rows.map(|(method, call)| $crate::table::Row { method, call }).collect()
        }
    };
}
pub(crate) use interface;
