//! How a record is written, in the index and in files: JSON, `{"schema": n, "record": …}`.
//!
//! JSON and not a binary form because a row is read once at start and written a few times in a
//! container's life, so that its 10 µs do not count; because the same text is the file from which
//! the index is rebuilt, where a person may have to read it; and because a field that is added with
//! a default needs no migration. The schema number is raised when that does not do. A record of a
//! newer schema is an error and is left alone.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// The schema that is written, and the newest that is read.
pub(crate) const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Written<'a, T> {
    schema: u32,
    record: &'a T,
}

#[derive(Deserialize)]
struct Read<'a> {
    schema: u32,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// Encodes `record`; `what` names it in errors.
pub(crate) fn encode<T: Serialize>(record: &T, what: &str) -> Result<Vec<u8>> {
    serde_json::to_vec(&Written {
        schema: SCHEMA,
        record,
    })
    .map_err(|source| Error::Encode {
        what: what.to_owned(),
        source,
    })
}

/// Decodes what [`encode`] wrote; `what` names it in errors.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    let damaged = |source| Error::Damaged {
        what: what.to_owned(),
        source,
    };
    let read: Read<'_> = serde_json::from_slice(bytes).map_err(damaged)?;
    if read.schema > SCHEMA {
        let what = what.to_owned();
        return Err(Error::NewerSchema {
            what,
            found: read.schema,
            known: SCHEMA,
        });
    }
    serde_json::from_str(read.record.get()).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_told_from_damage() {
        let row = encode(&7_u32, "row").unwrap();
        assert_eq!(decode::<u32>(&row, "row").unwrap(), 7);
        let newer = br#"{"schema":2,"record":{"unheard":"of"}}"#;
        assert!(matches!(
            decode::<u32>(newer, "row"),
            Err(Error::NewerSchema { found: 2, .. })
        ));
        for bad in [
            &b""[..],
            b"{",
            b"{}",
            br#"{"schema":1,"record":"x"}"#,
            b"\xff",
        ] {
            assert!(matches!(
                decode::<u32>(bad, "row"),
                Err(Error::Damaged { .. })
            ));
        }
    }
}
