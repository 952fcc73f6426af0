//! Every message survives the trip, and no bytes at all can do worse than an error.

use super::*;

fn key(exec: Option<&str>) -> ProcessKey {
    ProcessKey {
        container: "c1".into(),
        exec: exec.map(Into::into),
    }
}

fn requests() -> Vec<Request> {
    let spawn = Spawn {
        seq: 7,
        key: key(Some("e1")),
        namespaces: 0x7c02_0000,
        stop_signal: 15,
        stop_timeout_ms: 10_000,
        fds: vec![FdRole::Plan, FdRole::Cgroup, FdRole::Keep(Slot::Stdout)],
    };
    vec![
        Request::Hello { version: 1 },
        Request::Spawn(spawn),
        Request::List { seq: u64::MAX },
        Request::Acknowledge { key: key(None) },
        Request::Drop {
            key: key(None),
            slot: Slot::Stdin,
        },
    ]
}

/// SplitMix64: the same packets on every machine.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn every_request_survives_the_trip() {
    for request in requests() {
        assert_eq!(
            decode::<Request>(&encode(&request).unwrap()).unwrap(),
            request
        );
    }
}

#[test]
fn a_cut_or_lengthened_packet_is_an_error() {
    for request in requests() {
        let mut bytes = encode(&request).unwrap();
        for len in 0..bytes.len() {
            assert!(
                decode::<Request>(&bytes[..len]).is_err(),
                "{request:?} cut to {len}"
            );
        }
        bytes.push(0);
        assert!(matches!(
            decode::<Request>(&bytes),
            Err(Error::TrailingBytes { bytes: 1 })
        ));
    }
}

#[test]
fn random_and_mutated_packets_never_panic() {
    let mut state = 1;
    let valid: Vec<Vec<u8>> = requests()
        .iter()
        .map(|request| encode(request).unwrap())
        .collect();
    for round in 0..20_000 {
        let mut bytes = valid[round % valid.len()].clone();
        if round % 2 == 0 {
            bytes = (0..next(&mut state) % 80)
                .map(|_| next(&mut state) as u8)
                .collect();
        } else {
            for _ in 0..=next(&mut state) % 3 {
                let at = next(&mut state) as usize % bytes.len();
                bytes[at] = next(&mut state) as u8;
            }
        }
        let _ = decode::<Request>(&bytes);
        let _ = decode::<Reply>(&bytes);
        let _ = decode::<Failure>(&bytes);
    }
}

#[test]
fn descriptors_must_match_their_roles() {
    let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    assert_eq!(
        assign(&[FdRole::Plan, FdRole::Stdin], vec![fd(), fd()])
            .unwrap()
            .len(),
        2
    );
    let count = assign(&[FdRole::Plan], vec![]);
    assert!(matches!(
        count,
        Err(Error::FdCount {
            expected: 1,
            received: 0
        })
    ));
    let twice = assign(&[FdRole::Plan, FdRole::Plan], vec![fd(), fd()]);
    assert!(matches!(twice, Err(Error::FdRole { role: FdRole::Plan })));
}

#[test]
fn ids_are_lower_case_letters_and_digits() {
    let check = |container: &str, valid: bool| {
        let key = ProcessKey {
            container: container.into(),
            exec: None,
        };
        assert_eq!(key.is_valid(), valid, "{container:?}");
    };
    check("0az", true);
    check(&"a".repeat(64), true);
    check("", false);
    check(&"a".repeat(65), false);
    check("a/b", false);
    check("A", false);
    assert!(!key(Some("../x")).is_valid());
}
