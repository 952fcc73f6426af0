//! Ids and names: made, checked, looked up by prefix.

use crate::error::{Error, Result};

/// The longest name of a container in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The shortest prefix of an id that is looked up as one.
const PREFIX_CHARS_MIN: usize = 1;

/// Length of the short form of an id.
pub(crate) const SHORT_ID_CHARS: usize = 12;

const ADJECTIVES: &[&str] = &[
    "amber", "ample", "brave", "brisk", "calm", "clear", "clever", "cosy", "crisp", "daring",
    "deft", "eager", "early", "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad",
    "golden", "grand", "hardy", "hazel", "hearty", "honest", "jolly", "keen", "kind", "lively",
    "loyal", "lucid", "merry", "mild", "neat", "nimble", "noble", "patient", "plucky", "polite",
    "prompt", "proud", "quick", "quiet", "rapid", "ready", "robust", "rosy", "sage", "silent",
    "silver", "sleek", "smart", "snug", "sober", "solid", "spry", "steady", "sunny", "swift",
    "tidy", "vivid", "warm", "witty",
];

const NOUNS: &[&str] = &[
    "acorn", "alder", "anchor", "aspen", "badger", "beacon", "birch", "brook", "canyon", "cedar",
    "comet", "coral", "crane", "delta", "dune", "ember", "falcon", "fern", "fjord", "forge", "fox",
    "garnet", "glacier", "grove", "harbor", "hawk", "heron", "island", "ivy", "kestrel", "lagoon",
    "lantern", "larch", "lark", "linden", "lynx", "maple", "marsh", "meadow", "mill", "otter",
    "owl", "pebble", "pine", "plover", "quarry", "raven", "reef", "ridge", "river", "robin",
    "saddle", "sparrow", "spruce", "summit", "swan", "thicket", "tide", "tiger", "valley",
    "walnut", "willow", "wren", "zephyr",
];

/// 64 random hexadecimal digits.
///
/// # Errors
/// The kernel gives no random bytes.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::io("make an id")(std::io::Error::other(e.to_string())))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// A readable pair of words, chosen by an id's digits; `attempt` gives other pairs and, when it is
/// high, a number behind.
pub(crate) fn readable_name(id: &str, attempt: usize) -> String {
    let number = |range: std::ops::Range<usize>| {
        id.get(range)
            .and_then(|digits| usize::from_str_radix(digits, 16).ok())
            .unwrap_or(0)
    };
    let at = 8 * (attempt % 6);
    let adjective = ADJECTIVES[number(at..at + 4) % ADJECTIVES.len()];
    let noun = NOUNS[number(at + 4..at + 8) % NOUNS.len()];
    match attempt {
        0..6 => format!("{adjective}_{noun}"),
        _ => format!("{adjective}_{noun}_{attempt}"),
    }
}

/// Checks a name that a user gave.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let mut chars = name.chars();
    let good = chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && chars.clone().count() >= 1
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
        && name.len() <= NAME_BYTES_MAX;
    match good {
        true => Ok(()),
        false => Err(Error::invalid(
            "name",
            format!(
                "{name:?} is not a name: it needs two to {NAME_BYTES_MAX} characters of \
                 [a-zA-Z0-9_.-], the first a letter or digit"
            ),
        )),
    }
}

/// The first digits of an id, or all of a shorter string.
pub fn short_id(id: &str) -> &str {
    id.get(..SHORT_ID_CHARS).unwrap_or(id)
}

/// Whether `text` can be a prefix of an id.
pub(crate) fn is_id_prefix(text: &str) -> bool {
    (PREFIX_CHARS_MIN..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Parses a signal: a number, or a name with or without `SIG`, `RTMIN+n` and `RTMAX-n` included.
///
/// # Errors
/// [`Error::InvalidConfig`] for `field`.
pub(crate) fn parse_signal(field: &'static str, text: &str) -> Result<i32> {
    const REALTIME: (i32, i32) = (34, 64);
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let (min, max) = REALTIME;
    let offset = |rest: &str| {
        rest.parse::<i32>()
            .ok()
            .filter(|n| (0..=max - min).contains(n))
    };
    let number = match name {
        "RTMIN" => Some(min),
        "RTMAX" => Some(max),
        _ => name
            .parse::<i32>()
            .ok()
            .filter(|n| (1..=max).contains(n))
            .or_else(|| {
                name.strip_prefix("RTMIN+")
                    .and_then(offset)
                    .map(|n| min + n)
            })
            .or_else(|| {
                name.strip_prefix("RTMAX-")
                    .and_then(offset)
                    .map(|n| max - n)
            })
            .or_else(|| {
                format!("SIG{name}")
                    .parse::<nix::sys::signal::Signal>()
                    .ok()
                    .map(|s| s as i32)
            }),
    };
    number.ok_or_else(|| Error::invalid(field, format!("{text:?} is not a signal")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_number_and_by_name() {
        let check = |text: &str, want: Option<i32>| {
            assert_eq!(parse_signal("signal", text).ok(), want, "{text}");
        };
        check("9", Some(9));
        check("KILL", Some(9));
        check("sigterm", Some(15));
        check("SIGRTMIN+3", Some(37));
        check("RTMAX-1", Some(63));
        check("0", None);
        check("65", None);
        check("RTMIN+99", None);
        check("SIGNOSUCH", None);
        check("", None);
    }

    #[test]
    fn names_are_checked() {
        let check = |name: &str, good: bool| assert_eq!(check_name(name).is_ok(), good, "{name:?}");
        check("db", true);
        check("a.b-c_9", true);
        check("a", false);
        check("", false);
        check("-a", false);
        check("a b", false);
        check("a/b", false);
        check("ab\n", false);
        check(&"x".repeat(256), false);
    }

    #[test]
    fn made_up_names_pass_the_check_and_differ_by_attempt() {
        let id = random_id().unwrap();
        assert_eq!(id.len(), 64);
        for attempt in 0..8 {
            check_name(&readable_name(&id, attempt)).unwrap();
        }
        assert_ne!(readable_name(&id, 6), readable_name(&id, 7));
    }
}
