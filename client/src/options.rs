//! Flags that `run` and `create` share, and what they mean for a container's configuration.
//!
//! Values are parsed here once. Whether a source of a bind mount exists, a user is known or a
//! signal has a name is the daemon's to say.

use std::collections::BTreeMap;
use std::path::Path;

use clap::builder::ValueParser;
use clap::{ArgAction, ValueEnum};
use rcd_proto::types::container::{Bind, ContainerConfig};

use crate::error::Error;

/// When to fetch the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// Always, so that a moved tag is followed.
    Always,
    /// If it is not here.
    Missing,
    /// Never.
    Never,
}

// No doc comment: clap would take it for the about text of the command that flattens this.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
#[expect(
    clippy::struct_excessive_bools,
    missing_docs,
    reason = "each is a flag of the command line, described by its help"
)]
pub struct ContainerFlags {
    /// Keep stdin open, and connect it
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_name = "BOOL")]
    pub interactive: bool,
    /// Give the container a terminal
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_name = "BOOL")]
    pub tty: bool,
    /// Remove the container when it has ended
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_name = "BOOL")]
    pub rm: bool,
    /// Name of the container; a readable pair of words is made up if absent
    #[arg(long)]
    pub name: Option<String>,
    /// Set a variable of the environment; KEY alone takes its value from rc's own
    #[arg(short, long, value_name = "KEY[=VALUE]", allow_hyphen_values = true)]
    pub env: Vec<String>,
    /// Working directory; made if it does not exist
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User to run as, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Bind mount a file or directory of the host; OPTIONS are ro, rw, bind (without submounts), rbind
    #[arg(short, long, value_name = "SOURCE:TARGET[:OPTIONS]")]
    pub volume: Vec<String>,
    /// Make the root file system read-only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_name = "BOOL")]
    pub read_only: bool,
    /// Program to run instead of the image's entry point; an empty one clears it
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
    pub entrypoint: Option<String>,
    /// Host name inside
    #[arg(short = 'h', long)]
    pub hostname: Option<String>,
    /// Attach a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Network: none or host
    #[arg(long, visible_alias = "net", value_name = "MODE")]
    pub network: Option<String>,
    /// Signal that stop sends
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds after which stop kills
    #[arg(long, value_name = "SECONDS")]
    pub stop_timeout: Option<u32>,
    /// When to fetch the image
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pub pull: PullPolicy,
    /// Platform of the image to fetch
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
    /// The image, and the command to run in place of the image's own; flags end at the image
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"], value_parser = ValueParser::string())]
    pub words: Vec<String>,
}

impl ContainerFlags {
    /// The configuration that the flags ask for.
    ///
    /// # Errors
    /// A value that cannot be read, or that this version cannot honour.
    pub fn config(&self) -> Result<ContainerConfig, Error> {
        let (image, command) = self
            .words
            .split_first()
            .ok_or_else(|| Error::Usage("no image is named".into()))?;
        let entrypoint = self.entrypoint.as_ref().map(|program| {
            let program = Some(program.clone()).filter(|program| !program.is_empty());
            program.into_iter().collect::<Vec<_>>()
        });
        // The image's command belongs to the image's entry point: with another one it goes too.
        let command = (!command.is_empty() || entrypoint.is_some()).then(|| command.to_vec());
        Ok(ContainerConfig {
            image: image.clone(),
            name: self.name.clone(),
            entrypoint,
            command,
            env: environment(&self.env)?,
            working_dir: self.workdir.clone(),
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            tty: self.tty,
            open_stdin: self.interactive,
            auto_remove: self.rm,
            read_only: self.read_only,
            binds: self
                .volume
                .iter()
                .map(|text| bind(text))
                .collect::<Result<_, _>>()?,
            labels: labels(&self.label)?,
            network: self.network.as_deref().map(network).transpose()?,
            stop_signal: self.stop_signal.clone(),
            stop_timeout_s: self.stop_timeout,
        })
    }
}

/// Settings of the environment: `KEY=value`, or `KEY`, which is taken from our own and left out if
/// it is not there.
///
/// # Errors
/// A setting without a name, or a value of our own that is not UTF-8.
pub fn environment(settings: &[String]) -> Result<Vec<String>, Error> {
    let mut out = Vec::new();
    for setting in settings {
        let (key, value) = setting
            .split_once('=')
            .map_or((setting.as_str(), None), |(key, value)| (key, Some(value)));
        if key.is_empty() {
            return Err(Error::Usage(format!(
                "invalid environment variable {setting:?}: it has no name"
            )));
        }
        match (value, std::env::var(key)) {
            (Some(_), _) => out.push(setting.clone()),
            (None, Ok(value)) => out.push(format!("{key}={value}")),
            (None, Err(std::env::VarError::NotPresent)) => {}
            (None, Err(std::env::VarError::NotUnicode(_))) => {
                return Err(Error::Usage(format!(
                    "the value of the environment variable {key:?} is not UTF-8"
                )));
            }
        }
    }
    Ok(out)
}

fn labels(settings: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let labels =
        settings.iter().map(
            |setting| match setting.split_once('=').unwrap_or((setting, "")) {
                ("", _) => Err(Error::Usage(format!(
                    "invalid label {setting:?}: it has no name"
                ))),
                (key, value) => Ok((key.to_owned(), value.to_owned())),
            },
        );
    labels.collect()
}

fn network(mode: &str) -> Result<String, Error> {
    match mode {
        "none" | "host" => Ok(mode.to_owned()),
        _ => Err(Error::NotSupported {
            what: format!("--network {mode}"),
        }),
    }
}

/// Parses a bind mount. A relative source that begins with a dot is made absolute.
fn bind(text: &str) -> Result<Bind, Error> {
    let invalid = |why: &str| Error::Usage(format!("invalid volume {text:?}: {why}"));
    let mut parts = text.split(':');
    let (source, target, options) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), None, ..) => {
            return Err(Error::NotSupported {
                what: format!("the anonymous volume {text:?} (-v needs SOURCE:TARGET)"),
            });
        }
        (Some(source), Some(target), options, None) => {
            (source, target, options.unwrap_or_default())
        }
        _ => return Err(invalid("it is not SOURCE:TARGET[:OPTIONS]")),
    };
    if source.is_empty() || target.is_empty() {
        return Err(invalid("source and target cannot be empty"));
    }
    if !target.starts_with('/') {
        return Err(invalid("the target is not an absolute path"));
    }
    let source = match source {
        source if source.starts_with('/') => source.to_owned(),
        source if source.starts_with('.') => absolute(source)?,
        source if source.contains('/') => {
            return Err(invalid("a relative source begins with ./ or ../"));
        }
        name => {
            return Err(Error::NotSupported {
                what: format!("the named volume {name:?} (a directory is written ./{name})"),
            });
        }
    };
    let mut bind = Bind {
        source,
        target: target.to_owned(),
        read_only: false,
        recursive: true,
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => bind.read_only = true,
            // The second line is what happens without them.
            "rw" => bind.read_only = false,
            "rbind" | "rprivate" | "private" => {}
            "bind" => bind.recursive = false,
            // They relabel for SELinux; without it there is nothing to do.
            "z" | "Z" if !Path::new("/sys/fs/selinux/enforce").exists() => {}
            _ => {
                return Err(Error::NotSupported {
                    what: format!("the option {option:?} of the volume {text:?}"),
                });
            }
        }
    }
    Ok(bind)
}

fn absolute(source: &str) -> Result<String, Error> {
    let failed = |source_error| Error::File {
        operation: "make an absolute path of",
        path: source.into(),
        source: source_error,
    };
    let path = std::path::absolute(source).map_err(failed)?;
    path.into_os_string()
        .into_string()
        .map_err(|path| Error::Usage(format!("the path {} is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    fn parse(line: &str) -> Result<ContainerConfig, String> {
        let command = ContainerFlags::augment_args(clap::Command::new("run"));
        let words = std::iter::once("run").chain(line.split_ascii_whitespace());
        let matches = command
            .try_get_matches_from(words)
            .map_err(|error| error.to_string())?;
        let flags =
            ContainerFlags::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        flags.config().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_cluster_and_end_at_the_image() {
        let config = parse(
            "-it --rm -eA=1 -e B=2 --env=C=3=4 -w /w -u me:us -h host debian:12 -it --rm -e x",
        )
        .unwrap();
        assert!(config.tty && config.open_stdin && config.auto_remove);
        assert_eq!(config.image, "debian:12");
        assert_eq!(config.command.unwrap(), ["-it", "--rm", "-e", "x"]);
        assert_eq!(config.env, ["A=1", "B=2", "C=3=4"]);
        assert_eq!(
            (config.working_dir.as_deref(), config.user.as_deref()),
            (Some("/w"), Some("me:us"))
        );
        assert_eq!(config.hostname.as_deref(), Some("host"));
    }

    #[test]
    fn booleans_take_values_as_dockers_do() {
        let config = parse("-i=true --tty=false --rm=false --read-only x sh -c true").unwrap();
        assert!(config.open_stdin && !config.tty && !config.auto_remove && config.read_only);
        assert_eq!(config.command.unwrap(), ["sh", "-c", "true"]);
        assert_eq!(parse("x").unwrap().command, None);
        assert_eq!(parse("-- x -- y").unwrap().command.unwrap(), ["--", "y"]);
    }

    #[test]
    fn another_entry_point_drops_the_images_command() {
        let config = parse("--entrypoint sh x").unwrap();
        assert_eq!(
            (config.entrypoint.unwrap(), config.command.unwrap()),
            (vec!["sh".to_owned()], vec![])
        );
        assert_eq!(
            parse("--entrypoint= x ls").unwrap().entrypoint,
            Some(vec![])
        );
    }

    #[test]
    fn labels_and_networks_are_read() {
        let config = parse("-l a=b=c --label d --net host x").unwrap();
        assert_eq!(
            config.labels.into_iter().collect::<Vec<_>>(),
            [("a".into(), "b=c".into()), ("d".into(), String::new())]
        );
        assert_eq!(config.network.as_deref(), Some("host"));
        assert!(parse("--network bridge x").is_err_and(|text| text.contains("not supported yet")));
        assert!(parse("-l =x y").is_err());
    }

    #[test]
    fn the_environment_comes_from_flags_or_ours() {
        let path = std::env::var("PATH").unwrap();
        assert_eq!(
            environment(&["PATH".into(), "A=".into(), "NOT_SET_ANYWHERE_X".into()]).unwrap(),
            [format!("PATH={path}"), "A=".into()]
        );
        assert!(environment(&["=x".into()]).is_err());
    }

    #[test]
    fn volumes_parse() {
        let here = std::env::current_dir().unwrap().display().to_string();
        for (text, source, target, read_only, recursive) in [
            ("/a:/b", "/a".to_owned(), "/b", false, true),
            ("/a:/b:ro", "/a".to_owned(), "/b", true, true),
            (
                "./src:/src:ro,rbind",
                format!("{here}/src"),
                "/src",
                true,
                true,
            ),
            (".:/x:bind,rw", here.clone(), "/x", false, false),
            ("../y:/x", format!("{here}/../y"), "/x", false, true),
        ] {
            let expected = Bind {
                source,
                target: target.into(),
                read_only,
                recursive,
            };
            assert_eq!(bind(text).unwrap(), expected, "{text}");
        }
        for (text, message) in [
            ("/data", "anonymous volume"),
            ("data:/x", "named volume"),
            ("a/b:/x", "begins with ./"),
            ("/a:b", "not an absolute path"),
            (":/b", "cannot be empty"),
            ("/a:/b:ro:z", "is not SOURCE:TARGET"),
            ("/a:/b:shared", "not supported yet"),
        ] {
            assert!(
                bind(text).is_err_and(|error| error.to_string().contains(message)),
                "{text}"
            );
        }
    }
}
