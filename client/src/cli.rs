//! The command line: a table of verbs, parsed lazily.
//!
//! Each verb has a row; clap is given the flags of the one verb that was asked for only, because
//! building all of them would cost a good part of a short command's time. Grouped forms
//! (`rc container ls`) point at the same rows.
//!
//! Docker's flags that this version lacks are known by name, so that they give a clear error.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::commands;
use crate::connection::Address;
use crate::error::{EXIT_ENGINE, Error};
use crate::text;

mod docker_flags;

/// What every command gets.
#[derive(Debug)]
pub struct Context {
    /// Where the daemon is.
    pub address: Address,
    /// The group that the verb was called in (`container`, `image`, `system`).
    pub group: Option<&'static str>,
}

/// One verb.
struct Verb {
    name: &'static str,
    about: &'static str,
    /// Exit code for errors that have none of their own.
    exit_error: u8,
    augment: fn(Command) -> Command,
    run: fn(&ArgMatches, &Context) -> Result<u8, Error>,
}

macro_rules! verb {
    ($name:literal, $module:ident, $exit_error:expr, $about:literal) => {
        Verb {
            name: $name,
            about: $about,
            exit_error: $exit_error,
            augment: commands::$module::Arguments::augment_args,
            run: |matches, context| {
                let arguments = commands::$module::Arguments::from_arg_matches(matches)
                    .map_err(|error| Error::Usage(error.to_string()))?;
                commands::$module::run(arguments, context)
            },
        }
    };
}

const VERBS: &[Verb] = &[
    verb!(
        "run",
        run,
        EXIT_ENGINE,
        "Create and run a new container from an image"
    ),
    verb!(
        "exec",
        exec,
        EXIT_ENGINE,
        "Run a command in a running container"
    ),
    verb!("ps", ps, 1, "List containers"),
    verb!("logs", logs, 1, "Show what a container has written"),
    verb!("pull", pull, 1, "Fetch an image from a registry"),
    verb!("images", images, 1, "List images"),
    verb!(
        "create",
        create,
        EXIT_ENGINE,
        "Create a container without starting it"
    ),
    verb!("start", start, 1, "Start containers that do not run"),
    verb!(
        "attach",
        attach,
        1,
        "Connect the terminal to a running container"
    ),
    verb!("stop", stop, 1, "Stop running containers"),
    verb!("kill", kill, 1, "Send a signal to running containers"),
    verb!(
        "wait",
        wait,
        1,
        "Wait until containers have ended, and print their exit codes"
    ),
    verb!("rm", rm, 1, "Remove containers"),
    verb!(
        "inspect",
        inspect,
        1,
        "Show everything about containers and images"
    ),
    verb!("rmi", rmi, 1, "Remove images"),
    verb!(
        "import",
        import,
        1,
        "Make an image from the archive of a root file system"
    ),
    verb!("version", version, 1, "Show the versions of rc and rcd"),
    verb!(
        "info",
        info,
        1,
        "Show the state of the service and what this host lacks"
    ),
];

/// A group: its verbs, each with the name of its row in [`VERBS`].
type Group = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const GROUPS: &[Group] = &[
    (
        "container",
        "Manage containers",
        &[
            ("run", "run"),
            ("exec", "exec"),
            ("ls", "ps"),
            ("ps", "ps"),
            ("list", "ps"),
            ("logs", "logs"),
            ("create", "create"),
            ("start", "start"),
            ("attach", "attach"),
            ("stop", "stop"),
            ("kill", "kill"),
            ("wait", "wait"),
            ("rm", "rm"),
            ("inspect", "inspect"),
        ],
    ),
    (
        "image",
        "Manage images",
        &[
            ("ls", "images"),
            ("list", "images"),
            ("pull", "pull"),
            ("rm", "rmi"),
            ("import", "import"),
            ("inspect", "inspect"),
        ],
    ),
    ("system", "Manage the service", &[("info", "info")]),
];

fn verb(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}

/// The whole command tree; flags of a verb are added when clap reaches it.
pub fn command() -> Command {
    let root = Command::new("rc")
        .about("rc runs containers without root, through the rcd service of the same user")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(
            Arg::new("host")
                .short('H')
                .long("host")
                .value_name("URL")
                .global(true)
                .help("Socket of the service, as unix:///path [env: RCD_HOST] [default: $XDG_RUNTIME_DIR/rcd/varlink.sock]"),
        );
    let root = VERBS.iter().fold(root, |root, verb| {
        root.subcommand(subcommand(verb.name, verb))
    });
    GROUPS.iter().fold(root, |root, (name, about, verbs)| {
        let group = Command::new(*name)
            .about(*about)
            .subcommand_required(true)
            .arg_required_else_help(true);
        root.subcommand(
            verbs
                .iter()
                .fold(group, |group, (name, row)| match verb(row) {
                    Some(verb) => group.subcommand(subcommand(name, verb)),
                    None => group,
                }),
        )
    })
}

fn subcommand(name: &'static str, verb: &'static Verb) -> Command {
    Command::new(name).about(verb.about).defer(verb.augment)
}

/// Parses the command line, runs the command, and returns its error, if any, and its exit code.
pub fn run(words: Vec<String>) -> (Option<Error>, u8) {
    let matches = match command().try_get_matches_from(&words) {
        Ok(matches) => matches,
        Err(error) => return refuse(&error, &words),
    };
    let Some((name, inner)) = matches.subcommand() else {
        return (None, EXIT_ENGINE);
    };
    let group = GROUPS.iter().find(|(group, ..)| *group == name);
    let (verb, inner) = match (group, inner.subcommand()) {
        (Some((_, _, verbs)), Some((name, inner))) => (
            verbs
                .iter()
                .find(|(word, _)| *word == name)
                .and_then(|(_, row)| verb(row)),
            inner,
        ),
        _ => (verb(name), inner),
    };
    let Some(verb) = verb else {
        return (None, EXIT_ENGINE);
    };
    let address = match Address::find(inner.get_one::<String>("host").map(String::as_str)) {
        Ok(address) => address,
        Err(error) => return (Some(error), EXIT_ENGINE),
    };
    let context = Context {
        address,
        group: group.map(|(name, ..)| *name),
    };
    match (verb.run)(inner, &context) {
        Ok(code) => (None, code),
        Err(error) => {
            let code = error.exit_code(verb.exit_error);
            (Some(error), code)
        }
    }
}

/// Shows help, or says what is wrong with the command line. The exit code is Docker's.
fn refuse(error: &clap::Error, words: &[String]) -> (Option<Error>, u8) {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return match text::print(&error.render().to_string()) {
                Ok(()) => (None, 0),
                Err(error) => (Some(error), 1),
            };
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            text::warn(&error.render().to_string());
            return (None, 1);
        }
        ErrorKind::UnknownArgument => {
            if let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg)
                && docker_flags::is_known(words, flag)
            {
                return (
                    Some(Error::NotSupported {
                        what: format!("the flag {flag}"),
                    }),
                    EXIT_ENGINE,
                );
            }
        }
        ErrorKind::InvalidSubcommand => {
            if let Some(ContextValue::String(verb)) = error.get(ContextKind::InvalidSubcommand)
                && docker_flags::is_known_verb(verb)
            {
                return (
                    Some(Error::NotSupported {
                        what: format!("the command {verb}"),
                    }),
                    EXIT_ENGINE,
                );
            }
        }
        _ => {}
    }
    let rendered = error.render().to_string();
    let message = rendered.strip_prefix("error: ").unwrap_or(&rendered);
    let code = if matches!(error.kind(), ErrorKind::MissingRequiredArgument) {
        1
    } else {
        EXIT_ENGINE
    };
    (Some(Error::Usage(message.trim_end().to_owned())), code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> (String, u8) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match command().try_get_matches_from(&words) {
            Ok(_) => (String::new(), 0),
            Err(error) => {
                let (error, code) = refuse(&error, &words);
                (
                    error.map(|error| error.to_string()).unwrap_or_default(),
                    code,
                )
            }
        }
    }

    #[test]
    fn the_command_tree_is_sound() {
        command().debug_assert();
        for verb in VERBS {
            (verb.augment)(Command::new(verb.name)).debug_assert();
        }
        for (_, _, verbs) in GROUPS {
            assert!(verbs.iter().all(|(_, row)| verb(row).is_some()));
        }
    }

    #[test]
    fn flags_of_docker_that_are_missing_say_so() {
        for (line, flag) in [
            ("rc run -p 80:80 x", "-p"),
            ("rc run -dp 80:80 x", "-p"),
            ("rc run --memory=1g x", "--memory"),
            ("rc container run -m 1g x", "-m"),
            ("rc create --mount type=tmpfs x", "--mount"),
            ("rc run --tmpfs /x x", "--tmpfs"),
            ("rc run --cap-add ALL x", "--cap-add"),
            ("rc ps --filter a=b", "--filter"),
            ("rc logs --since 1h x", "--since"),
            ("rc exec --privileged x y", "--privileged"),
        ] {
            let expected = format!("the flag {flag} is not supported yet by this version of rc");
            assert_eq!(refused(line), (expected, EXIT_ENGINE), "{line}");
        }
        assert!(
            refused("rc build .")
                .0
                .contains("the command build is not supported yet")
        );
    }

    #[test]
    fn nonsense_is_an_ordinary_usage_error() {
        let (message, code) = refused("rc run --frobnicate x");
        assert!(
            message.starts_with("unexpected argument '--frobnicate'"),
            "{message}"
        );
        assert_eq!(code, EXIT_ENGINE);
        assert_eq!(refused("rc run").1, 1);
        assert_eq!(refused("rc frobnicate").1, EXIT_ENGINE);
    }
}
