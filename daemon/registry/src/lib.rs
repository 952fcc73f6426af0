//! A client of OCI distribution registries: from a reference to verified bytes, nothing on disk.
//!
//! ```text
//!   Reference ─ resolve ─► index ─► manifest ─► config      bounded, sha256 against what was asked
//!                                       └─ layer(i) ─► stream      hashed as it passes, resumable
//! ```
//! `reference`, `platform` and `manifest` are pure; `auth` reads credentials; `http` sends requests;
//! `layer` streams. It speaks the distribution-spec through reqwest and not through oci-client's
//! client, because that reads manifests, errors and tokens of any length into memory, hides why a
//! token was refused, follows redirects and foreign layer URLs unasked, and asks for the API's
//! version before each request of an anonymous pull.
//!
//! TLS is rustls with ring. Nothing here pushes, unpacks, or starts credential helpers.

mod auth;
mod config;
mod error;
mod failure;
mod http;
mod layer;
mod manifest;
mod platform;
mod reference;
mod registry;
#[cfg(test)]
mod tests;

pub use auth::credential_files;
pub use config::{Config, Timeouts};
pub use error::Error;
pub use manifest::{CONFIG_BYTES_MAX, Compression, LAYERS_MAX, Layer, MANIFEST_BYTES_MAX};
pub use platform::Platform;
pub use reference::{NAME_BYTES_MAX, Reference, TAG_BYTES_MAX, is_sha256_digest};
pub use registry::{Registry, Resolved};
