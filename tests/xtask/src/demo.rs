//! `cargo xtask demo`: what a user sees of rcd, once through.
//!
//! The demo has a systemd user manager, a home and a runtime directory of its own, so it neither
//! meets nor touches an rcd that the user has installed.

use std::time::Instant;

use rcd_tests::{Daemon, Environment, Error, Registry, Result, Session, image, units};

use crate::{Outcome, build, host, packages};

/// Builds and runs the demo.
pub(crate) fn run() -> Outcome {
    println!("== building (release)");
    let programs = build::programs(true)?;
    host::enter(&programs, &["demo".into()], &[&packages::NEEDED])
}

/// The ordinary user's part.
pub(crate) fn inside(environment: &Environment) -> Outcome {
    println!("== a systemd user manager of our own");
    let session = Session::start_bare(environment)?;
    let home = session.sandbox().home.clone();
    let (bin, unit_folder) = (home.join(".local/bin"), session.units());
    units::install_programs(&environment.bin, &bin)?;
    units::install_units(&unit_folder, &bin)?;
    println!(
        "   programs in {}, units in {}",
        bin.display(),
        unit_folder.display()
    );

    println!("== an image of Debian packages, in a registry on loopback");
    let registry = Registry::start(environment)?;
    let reference = registry.push(&image::debian(&environment.cache)?, "debian:12")?;
    println!("   {reference}");

    let outcome = show(&session, &reference);

    println!("== cleaning up");
    session
        .systemctl(&["stop", "rcd.socket", "rcd.service", "rcd-holder.service"])
        .ok();
    let count = units::uninstall(&unit_folder, &bin);
    let manager_log = session.manager_log();
    drop((registry, session));
    println!("   {count} files uninstalled, registry and user manager ended");
    outcome.inspect_err(|_| println!("what systemd and rcd wrote:\n{manager_log}"))?;
    println!("the demo is over: everything worked");
    Ok(0)
}

fn show(session: &Session, reference: &str) -> Result<()> {
    for arguments in [&["daemon-reload"][..], &["start", "rcd"][..]] {
        println!("$ systemctl --user {}", arguments.join(" "));
        session.systemctl(arguments)?;
    }
    let rc = |arguments: &[&str]| {
        let quoted: Vec<String> = arguments.iter().map(|word| quote(word)).collect();
        println!("$ rc {}", quoted.join(" "));
        let begun = Instant::now();
        let output = session.rc(arguments);
        print!("{}", output.stdout);
        eprint!("{}", output.stderr);
        println!(
            "  [exit code {}, {} ms]",
            output.code,
            begun.elapsed().as_millis()
        );
        output.success()
    };
    rc(&["pull", reference])?;
    rc(&["images"])?;
    let script = "grep PRETTY_NAME /etc/os-release; id; ps ax; ls /usr/share | head -3";
    let output = rc(&[
        "run",
        "--name",
        "hello",
        "-e",
        "A=1",
        "debian:12",
        "bash",
        "-c",
        script,
    ])?;
    expect(&output, "Debian", "the container's output")?;
    rc(&["run", "-d", "--name", "db", "debian:12", "sleep", "1000"])?;
    rc(&["exec", "db", "cat", "/proc/1/comm"])?;
    println!("$ systemctl --user restart rcd   (containers run on)");
    session.systemctl(&["restart", "rcd"])?;
    let output = rc(&["ps", "-a"])?;
    expect(&output, "hello", "the list of containers")?;
    expect(&output, "db", "the list of containers")?;
    rc(&["rm", "-f", "db", "hello"])?;
    rc(&["rmi", reference]).map(drop)
}

fn quote(word: &str) -> String {
    match word.contains(' ') {
        true => format!("'{word}'"),
        false => word.to_owned(),
    }
}

fn expect(output: &str, text: &str, what: &str) -> Result<()> {
    match output.contains(text) {
        true => Ok(()),
        false => Err(Error::Missing(format!("{what} lacks {text:?}"))),
    }
}
