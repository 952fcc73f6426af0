//! Unpacks a layer from stdin into the data directory given, and tells what it was: for looking at
//! one archive, and for measuring. Run it in a user namespace to have the owners kept:
//! `unshare -Ur --map-auto unpack DIR < LAYER`.

use std::io::Write;

use rcd_store::{LayerSource, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .ok_or("usage: unpack DIR < LAYER")?;
    let (store, _) = Store::open(dir.as_ref())?;
    let unpacked = store.unpack_layer(std::io::stdin().lock(), &LayerSource::default())?;
    writeln!(std::io::stdout(), "{unpacked:#?}")?;
    Ok(())
}
