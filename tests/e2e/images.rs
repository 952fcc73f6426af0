//! pull, import, images, rmi.

use std::{fs, time::Duration};

use rcd_tests::{
    Daemon, Environment, Registry, Service,
    command::until,
    harness::Verdict,
    image::{self, Compression, Layer},
};
use serde_json::json;

use crate::support::{assert_code, assert_refused, busybox, finish, inspect, spawn};

pub(crate) fn pull_and_run(environment: &Environment) -> Verdict {
    let rcd = Service::start(environment)?;
    let registry = Registry::start(environment)?;
    let reference = registry.push(&image::debian(&environment.cache)?, "debian:12")?;
    let output = rcd.rc(&["pull", &reference]);
    assert_code(&output, 0);
    assert!(
        !output.stdout.contains('\x1b'),
        "escape sequences without a terminal"
    );
    for name in ["debian:12", &reference] {
        let script = "grep ^ID= /etc/os-release; id -un";
        assert_eq!(
            rcd.rc_ok(&["run", "--rm", name, "bash", "-c", script])?,
            "ID=debian\nroot"
        );
    }
    assert!(rcd.rc_ok(&["images"])?.contains("debian"));
    Ok(())
}

pub(crate) fn pull_again_is_quick_and_harmless(environment: &Environment) -> Verdict {
    let rcd = Service::start(environment)?;
    let registry = Registry::start(environment)?;
    let reference = registry.push(&image::busybox(&environment.cache)?, "busybox")?;
    rcd.rc_ok(&["pull", &reference])?;
    rcd.rc_ok(&["run", "-d", "--name", "main", &reference, "sleep", "1000"])?;
    rcd.rc_ok(&["pull", &reference])?;
    assert_eq!(rcd.rc_ok(&["exec", "main", "echo", "fine"])?, "fine");
    assert_eq!(rcd.rc_ok(&["images", "-q"])?.lines().count(), 1);
    Ok(())
}

pub(crate) fn layers_and_whiteouts(environment: &Environment) -> Verdict {
    let rcd = Service::start(environment)?;
    let registry = Registry::start(environment)?;
    let reference = registry.push(&image::debian(&environment.cache)?, "debian:12")?;
    rcd.rc_ok(&["pull", &reference])?;
    let script =
        "test -e /usr/share/doc && exit 9; cat /etc/motd; id -u dev; stat -c %U /etc/passwd";
    let output = rcd.rc_ok(&["run", "--rm", &reference, "bash", "-c", script])?;
    assert_eq!(output, "a Debian of packages, without root\n1000\nroot");
    Ok(())
}

/// An image of several layers that do not compress, large enough to be interrupted.
fn large_image(environment: &Environment) -> rcd_tests::Result<std::path::PathBuf> {
    image::cached(&environment.cache, "large", |scratch, layout| {
        let roots: Vec<_> = (0..4)
            .map(|number| scratch.join(number.to_string()))
            .collect();
        for (number, root) in roots.iter().enumerate() {
            fs::create_dir_all(root).unwrap();
            let mut command = std::process::Command::new("dd");
            command.args(["if=/dev/urandom", "bs=1M", "count=40", "status=none"]);
            rcd_tests::command::check(command.arg(format!(
                "of={}",
                root.join(format!("data{number}")).display()
            )))?;
        }
        let layer = |root| Layer {
            root,
            compression: Compression::None,
        };
        let layers: Vec<_> = roots.iter().map(|root| layer(root.as_path())).collect();
        image::build(layout, &layers, &json!({"Cmd": ["/none"]}))
    })
}

pub(crate) fn pull_is_interrupted_and_resumed(environment: &Environment) -> Verdict {
    let mut rcd = Service::start(environment)?;
    let registry = Registry::start(environment)?;
    let reference = registry.push(&large_image(environment)?, "large")?;
    let mut client = spawn(&rcd, &["pull", &reference])?;
    let layers = rcd.sandbox().data().join("layers");
    until(60, "a first layer", || {
        fs::read_dir(&layers).ok()?.flatten().next().map(drop)
    })
    .ok();
    client.kill().ok();
    client.wait().ok();
    assert_eq!(
        rcd.rc_ok(&["images", "-q"])?,
        "",
        "half an image is no image"
    );
    let client = spawn(&rcd, &["pull", &reference])?;
    std::thread::sleep(Duration::from_millis(50));
    rcd.kill_daemon()?;
    finish(client)?;
    rcd.rc_ok(&["pull", &reference])?;
    assert_eq!(rcd.rc_ok(&["images", "-q"])?.lines().count(), 1);
    Ok(())
}

pub(crate) fn pull_does_not_delay_a_start(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let registry = Registry::start(environment)?;
    let reference = registry.push(&large_image(environment)?, "large")?;
    let client = spawn(&rcd, &["pull", &reference])?;
    for _ in 0..5 {
        rcd.rc_ok(&["run", "--rm", "busybox", "true"])?;
    }
    let (code, _, stderr) = finish(client)?;
    assert_eq!(code, 0, "{stderr}");
    Ok(())
}

pub(crate) fn run_pulls_what_is_missing(environment: &Environment) -> Verdict {
    let rcd = Service::start(environment)?;
    let registry = Registry::start(environment)?;
    let reference = registry.push(&image::busybox(&environment.cache)?, "box/busy:1")?;
    let refused = rcd.rc(&["run", "--rm", "--pull", "never", &reference, "true"]);
    assert_refused(&refused, 125, &["no such image"]);
    let output = rcd.rc(&["run", "--rm", &reference, "echo", "pulled"]);
    assert_code(&output, 0);
    assert_eq!(output.stdout, "pulled\n", "progress belongs to stderr");
    Ok(())
}

pub(crate) fn import_a_tar(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    assert_eq!(
        rcd.rc_ok(&["run", "--rm", "busybox", "echo", "imported"])?,
        "imported"
    );
    let listed = rcd.rc_ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"])?;
    assert_eq!(listed, "busybox:latest");
    Ok(())
}

pub(crate) fn import_from_stdin(environment: &Environment) -> Verdict {
    let rcd = Service::start(environment)?;
    let tar = fs::read(image::busybox_tar(&environment.cache)?).unwrap();
    let output = rcd
        .sandbox()
        .rc_with_input(&["import", "-", "from/stdin:1"], &tar);
    assert_code(&output, 0);
    assert!(
        output.stdout.trim().starts_with("sha256:"),
        "{}",
        output.stdout
    );
    assert_eq!(
        rcd.rc_ok(&["run", "--rm", "from/stdin:1", "echo", "ok"])?,
        "ok"
    );
    Ok(())
}

pub(crate) fn remove_an_image(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    rcd.rc_ok(&["run", "-d", "--name", "main", "busybox", "sleep", "1000"])?;
    assert_refused(&rcd.rc(&["rmi", "busybox"]), 1, &["busybox", "main"]);
    rcd.rc_ok(&["rm", "-f", "main"])?;
    rcd.rc_ok(&["rmi", "busybox"])?;
    assert_eq!(rcd.rc_ok(&["images", "-q"])?, "");
    assert_refused(
        &rcd.rc(&["rmi", "busybox"]),
        1,
        &["no such image", "busybox"],
    );
    Ok(())
}

pub(crate) fn digests_name_images(environment: &Environment) -> Verdict {
    let rcd = Service::start(environment)?;
    let registry = Registry::start(environment)?;
    let reference = registry.push(&image::busybox(&environment.cache)?, "busybox")?;
    rcd.rc_ok(&["pull", &reference])?;
    let image = inspect(&rcd, &reference)?;
    let id = image["Id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("sha256:"), "{id}");
    let short = &id["sha256:".len()..][..12];
    assert_eq!(
        rcd.rc_ok(&["run", "--rm", short, "echo", "by id"])?,
        "by id"
    );
    let digest = image["RepoDigests"][0]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(digest.contains("@sha256:"), "{image}");
    rcd.rc_ok(&["pull", &digest])?;
    Ok(())
}
