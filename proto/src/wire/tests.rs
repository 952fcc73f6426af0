//! Tests of the message codec, with a mutation fuzzer.

use super::*;
use crate::types::container::{CreateParams, ListParams, ListReply, StopParams};

fn raw(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap()
}

fn parameter<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
    match decode::<T>("a.B", Some(raw(text))) {
        Err(Error::InvalidParameter { parameter, message }) => {
            assert!(message.starts_with("a.B: "), "{message}");
            parameter
        }
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn calls_parse_with_nulls_escapes_and_extra_keys() {
    let call = Call::parse(
        br#"{"meth\u006fd":"a.\u0042","parameters":null,"more":null,"oneway":true,"x":[1]}"#,
    )
    .unwrap();
    assert_eq!(call.method, "a.B");
    assert!(call.parameters.is_none() && !call.more && call.oneway && !call.upgrade);
    let call = Call::parse(br#"{"method":"a.B","parameters":{},"upgrade":true}"#).unwrap();
    assert_eq!(call.parameters.map(RawValue::get), Some("{}"));
    assert!(call.upgrade);
}

#[test]
fn what_is_no_call_is_an_invalid_parameter() {
    for bad in [
        &b""[..],
        b"\xff\xfe",
        b"{",
        b"[]",
        b"{}",
        br#"{"method":1}"#,
        br#"{"method":"a","more":"yes"}"#,
    ] {
        assert!(
            matches!(Call::parse(bad), Err(Error::InvalidParameter { .. })),
            "{bad:?}"
        );
    }
}

#[test]
fn wrong_parameters_are_named_by_their_path() {
    assert_eq!(parameter::<StopParams>("{}"), "id");
    assert_eq!(parameter::<StopParams>(r#"{"id":1}"#), "id");
    assert_eq!(
        parameter::<StopParams>(r#"{"id":"a","timeoutS":-1}"#),
        "timeoutS"
    );
    assert_eq!(
        parameter::<StopParams>(r#"{"id":"a","timeout":1}"#),
        "timeout"
    );
    assert_eq!(
        parameter::<CreateParams>(r#"{"config":{"image":"a","binds":[{"source":3}]}}"#),
        "config.binds[0].source"
    );
    assert_eq!(
        parameter::<CreateParams>(
            r#"{"config":{"image":"a","binds":[{"source":"/a","target":"/b","sauce":""}]}}"#
        ),
        "config.binds[0].sauce"
    );
    assert_eq!(parameter::<CreateParams>("[]"), "");
    assert_eq!(parameter::<CreateParams>("3"), "");
    let deep = format!(
        r#"{{"config":{{"image":{}1{}}}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    assert_eq!(parameter::<CreateParams>(&deep), "config.image");
}

#[test]
fn absent_parameters_are_empty_ones() {
    assert_eq!(decode::<ListParams>("a.B", None), Ok(ListParams::default()));
}

#[test]
fn calls_and_replies_survive_the_wire() {
    let mut bytes = Vec::new();
    encode_call("a.List", &ListParams { all: true }, Mode::More, &mut bytes).unwrap();
    let call = Call::parse(bytes.strip_suffix(b"\0").unwrap()).unwrap();
    assert!(call.more && !call.oneway && !call.upgrade);
    assert_eq!(
        decode::<ListParams>("a.List", call.parameters),
        Ok(ListParams { all: true })
    );

    bytes.clear();
    encode_reply(raw(r#"{"containers":[],"newer":1}"#), true, &mut bytes);
    let reply = Reply::parse(bytes.strip_suffix(b"\0").unwrap()).unwrap();
    assert!(reply.continues);
    assert_eq!(reply.into_result(), Ok(ListReply { containers: vec![] }));

    bytes.clear();
    let error = Error::Busy {
        message: "too many".into(),
    };
    encode_error(&error, &mut bytes);
    let reply = Reply::parse(bytes.strip_suffix(b"\0").unwrap()).unwrap();
    assert_eq!(reply.into_result::<ListReply>(), Err(error));
}

#[test]
fn messages_survive_any_cut() {
    let bytes = b"one\0\0three\0rest";
    for cut in 0..=bytes.len() {
        let mut messages = Messages::default();
        let mut got = Vec::new();
        for part in [&bytes[..cut], &bytes[cut..]] {
            messages.extend(part);
            while let Some(message) = messages.next_message().unwrap() {
                got.push(message.to_vec());
            }
        }
        assert_eq!(got, [&b"one"[..], b"", b"three"]);
        assert!(!messages.has_message());
        assert_eq!(messages.into_rest(), b"rest");
    }
}

#[test]
fn a_message_that_is_too_long_is_skipped_in_bounded_memory() {
    let mut messages = Messages::default();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..40 {
        messages.extend(&chunk);
        assert_eq!(messages.next_message(), Ok(None));
        assert!(messages.waiting_bytes() <= MESSAGE_BYTES_MAX);
    }
    messages.extend(b"end\0next\0");
    assert_eq!(messages.next_message(), Err(TooLong));
    assert_eq!(messages.next_message(), Ok(Some(&b"next"[..])));
    assert_eq!(messages.next_message(), Ok(None));
}

#[test]
fn the_longest_message_passes_and_one_byte_more_does_not() {
    for (len, fits) in [(MESSAGE_BYTES_MAX - 1, true), (MESSAGE_BYTES_MAX, false)] {
        let mut messages = Messages::default();
        messages.extend(&vec![b'x'; len]);
        messages.extend(b"\0");
        assert_eq!(
            messages
                .next_message()
                .map(|message| message.map(<[u8]>::len))
                .ok(),
            fits.then_some(Some(len))
        );
    }
}

#[test]
fn mutated_messages_never_panic() {
    let seeds: [&[u8]; 4] = [
        br#"{"method":"io.rcd.Container.Create","parameters":{"config":{"image":"a","binds":[{"source":"/a","target":"/b"}],"labels":{"k":"v"},"stopTimeoutS":3}}}"#,
        br#"{"method":"io.rcd.Container.Stop","parameters":{"id":"\ud83d\ude00","timeoutS":1e3},"more":null}"#,
        br#"{"error":"io.rcd.Container.StartFailed","parameters":{"message":"x","id":"y","exitCode":127}}"#,
        br#"{"parameters":{"containers":[]},"continues":true}"#,
    ];
    // SplitMix64 with a fixed seed: the same inputs in every run.
    let mut state = 7u64;
    let mut random = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) as usize
    };
    for round in 0..20_000 {
        let mut message = seeds[round % seeds.len()].to_vec();
        for _ in 0..=random() % 4 {
            let at = random() % message.len();
            match random() % 4 {
                0 => message[at] = random() as u8,
                1 => message.truncate(at.max(1)),
                2 => message.insert(at, b"{}[]\",:0\\"[random() % 9]),
                _ => message.extend_from_within(at..),
            }
        }
        if let Ok(call) = Call::parse(&message) {
            let _ = decode::<CreateParams>(&call.method, call.parameters);
            let _ = decode::<StopParams>(&call.method, call.parameters);
        }
        if let Ok(reply) = Reply::parse(&message) {
            let _ = reply.into_result::<ListReply>();
        }
        let _ = Error::from_json(&message).to_wire();
        let mut messages = Messages::default();
        messages.extend(&message);
        while let Ok(Some(_)) = messages.next_message() {}
    }
}
