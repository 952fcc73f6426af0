//! End-to-end tests.
#![allow(clippy::print_stdout, reason = "a test binary prints")]
use rcd_tests::{Daemon, Environment, Session, harness};

fn session(environment: &Environment) -> harness::Verdict {
    let session = Session::start(environment)?;
    assert!(
        session
            .systemctl(&["list-unit-files", "rcd*"])?
            .contains("rcd-holder")
    );
    println!("{:?}", session.sandbox().processes());
    let registry = rcd_tests::Registry::start(environment)?;
    println!(
        "{}",
        registry.push(
            &rcd_tests::image::busybox(&environment.cache)?,
            "busybox:latest"
        )?
    );
    println!(
        "{}",
        registry.push(&rcd_tests::image::debian(&environment.cache)?, "debian:12")?
    );
    Ok(())
}

fn main() {
    let Some(environment) = Environment::from_env() else {
        return;
    };
    let tests = [harness::Test {
        name: "session",
        long: false,
        run: session,
    }];
    println!(
        "test result: ok. {}",
        harness::run(&environment, &tests, None, false, 1).line()
    );
}
