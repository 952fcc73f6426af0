//! How a step's error becomes the [`Failure`] that the holder passes on.

use std::fmt::Display;

use nix::errno::Errno;

use crate::protocol::{Failure, Step};

/// The longest `object` and `detail` of a failure in bytes, so that it fits a packet.
const TEXT_BYTES_MAX: usize = 4096;

/// Result of a step.
pub(super) type Result<T> = std::result::Result<T, Failure>;

/// Names the step and its object where the kernel said no.
pub(super) trait At<T> {
    /// Errno says it all.
    fn at(self, step: Step, object: impl Display) -> Result<T>;

    /// Errno needs words: `why` gets it and may answer with an empty text.
    fn at_because(
        self,
        step: Step,
        object: impl Display,
        why: impl FnOnce(Errno) -> String,
    ) -> Result<T>;
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, step: Step, object: impl Display) -> Result<T> {
        self.at_because(step, object, |_| String::new())
    }

    fn at_because(
        self,
        step: Step,
        object: impl Display,
        why: impl FnOnce(Errno) -> String,
    ) -> Result<T> {
        self.map_err(|errno| Failure {
            step,
            object: bounded(object.to_string()),
            errno: errno as i32,
            detail: bounded(why(errno)),
        })
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, step: Step, object: impl Display) -> Result<T> {
        self.at_because(step, object, |_| String::new())
    }

    fn at_because(
        self,
        step: Step,
        object: impl Display,
        why: impl FnOnce(Errno) -> String,
    ) -> Result<T> {
        self.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
            .at_because(step, object, why)
    }
}

/// A refusal of our own, where the kernel was not asked.
pub(super) fn refuse(step: Step, object: impl Display, detail: impl Display) -> Failure {
    let (object, detail) = (bounded(object.to_string()), bounded(detail.to_string()));
    Failure {
        step,
        object,
        errno: 0,
        detail,
    }
}

/// Cuts a text at a character's boundary.
fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        let long = format!("a{}", "é".repeat(TEXT_BYTES_MAX));
        let cut = bounded(long);
        assert_eq!(cut.len(), TEXT_BYTES_MAX - 1);
        assert!(cut.ends_with('é'));
    }
}
