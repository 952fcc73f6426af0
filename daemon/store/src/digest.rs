//! `sha256:…` digests: the only algorithm that images use in practice, and the only one taken here.

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Hexadecimal digits of a sha256 digest.
const HEX_LEN: usize = 64;

/// The hexadecimal digits of `sha256:<64 lower case digits>`.
pub(crate) fn hex(digest: &str) -> Result<&str> {
    digest
        .strip_prefix("sha256:")
        .filter(|hex| is_hex(hex))
        .ok_or_else(|| Error::InvalidDigest {
            digest: digest.to_owned(),
        })
}

/// Whether these are the digits of a digest.
pub(crate) fn is_hex(text: &str) -> bool {
    text.len() == HEX_LEN
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Digest of `bytes`.
pub(crate) fn of(bytes: &[u8]) -> String {
    finish(Sha256::new_with_prefix(bytes))
}

/// Digest of what was hashed.
pub(crate) fn finish(hash: Sha256) -> String {
    format!("sha256:{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lower_case_sha256_is_a_digest() {
        let empty = of(b"");
        let digits = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&empty).unwrap(), digits);
        for bad in [
            "",
            "sha256:",
            "sha256:../..",
            "sha512:00",
            digits,
            &empty.to_uppercase(),
        ] {
            assert!(hex(bad).is_err(), "{bad}");
        }
        assert!(hex(&format!("{empty}0")).is_err());
    }
}
