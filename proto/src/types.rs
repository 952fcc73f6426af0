//! Parameters and replies of the API's methods, by noun.
//!
//! Plain data: camelCase on the wire, absent means null, times in nanoseconds since the epoch.
//! [`types!`] derives for each of them what the wire and the interface descriptions need, so that
//! a name is written once.

/// Declares wire types: serde in both directions and the description for varlink's IDL, both in
/// camelCase.
macro_rules! types {
    ($( $(#[$meta:meta])* pub $what:ident $name:ident { $($body:tt)* } )+) => { $(
        #[derive(
            Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize,
            zlink_core::introspect::CustomType,
        )]
        #[serde(rename_all = "camelCase")]
        #[zlink(crate = "zlink_core", rename_all = "camelCase")]
        $(#[$meta])*
        pub $what $name { $($body)* }
    )+ };
}

pub mod container;
pub mod exec;
pub mod image;
pub mod system;

types! {
    /// No parameters, or nothing to say.
    #[derive(Default, Copy)]
    pub struct Empty {}
}
