//! `cargo xtask bench`: filled in by its parts.

use clap::Args;
use rcd_tests::Environment;

use crate::Outcome;

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {}

/// The same, inside.
#[derive(Args)]
pub(crate) struct InnerOptions {}

pub(crate) fn run(_options: &Options) -> Outcome {
    Ok(0)
}

pub(crate) fn inside(_environment: &Environment, _options: &InnerOptions) -> Outcome {
    Ok(0)
}
