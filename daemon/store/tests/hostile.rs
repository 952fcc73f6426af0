//! Archives damaged at random, with fixed seeds: whatever they hold, unpacking ends with a layer or
//! an error, nothing is left of the latter, and nothing outside is touched.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and tell as tests do"
)]

mod support;

use std::io::Write;

use rcd_store::LayerSource;
use support::{Archive, Fixture};

/// Archives tried.
const CASES: u64 = 3000;

fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap()
}

fn seeds() -> Vec<Vec<u8>> {
    let plain = Archive::new()
        .dir("d", 0o755)
        .file("d/f", &[1; 700])
        .symlink("d/l", "../..")
        .hard_link("h", "d/f")
        .file("d/.wh.x", b"")
        .file("e/.wh..wh..opq", b"")
        .special("p", tar::EntryType::Fifo)
        .file(&"long/".repeat(30), b"x")
        .finish();
    let pax = Archive::new()
        .pax_file(
            "f",
            &[
                ("SCHILY.xattr.user.a", b"1"),
                ("path", b"g"),
                ("mtime", b"1.5"),
            ],
        )
        .pax_file(
            "s",
            &[
                ("GNU.sparse.size", b"4096"),
                ("GNU.sparse.map", b"0,2,4000,2"),
            ],
        )
        .finish();
    vec![plain, pax]
}

/// Changes a few bytes, and mostly puts the headers' checksums right again.
fn damage(archive: &mut Vec<u8>, state: &mut u64) {
    for _ in 0..=random(state) % 6 {
        let at = random(state) % archive.len();
        archive[at] = match random(state) % 4 {
            0 => b'0' + u8::try_from(random(state) % 8).unwrap(),
            1 => b"./\0\xff"[random(state) % 4],
            _ => u8::try_from(random(state) % 256).unwrap(),
        };
    }
    if random(state).is_multiple_of(8) {
        archive.truncate(random(state) % archive.len());
    }
    if !random(state).is_multiple_of(8) {
        for block in archive.chunks_exact_mut(512) {
            if &block[257..262] == b"ustar" {
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                let own: u32 = block[148..156].iter().map(|byte| u32::from(*byte)).sum();
                let text = format!("{:06o}\0 ", sum - own + 256);
                block[148..156].copy_from_slice(text.as_bytes());
            }
        }
    }
}

#[test]
fn damaged_archives_neither_panic_nor_escape_nor_leave_anything() {
    let fixture = Fixture::new();
    let seeds = seeds();
    let (mut state, mut taken) = (0x2545_f491_4f6c_dd1d, 0);
    for case in 0..CASES {
        let mut archive = seeds[random(&mut state) % seeds.len()].clone();
        damage(&mut archive, &mut state);
        if case % 3 == 0 {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&archive).unwrap();
            archive = gzip.finish().unwrap();
            let at = random(&mut state) % archive.len();
            if case % 2 == 0 {
                archive[at] ^= 1;
            }
        }
        match fixture
            .store
            .unpack_layer(&archive[..], &LayerSource::default())
        {
            Ok(unpacked) => {
                taken += 1;
                fixture
                    .store
                    .put_image(&support::image(&unpacked.diff_id))
                    .unwrap();
            }
            Err(_) => assert!(
                fixture
                    .names("layers")
                    .iter()
                    .all(|name| !name.starts_with('.'))
            ),
        }
        fixture.store.collect_layers(&[]).unwrap();
        fixture.store.empty_trash().unwrap();
        fixture.check_sentinel();
    }
    assert_eq!(fixture.names("layers"), Vec::<String>::new());
    assert!(
        taken > CASES / 100,
        "only {taken} damaged archives were still whole"
    );
}
