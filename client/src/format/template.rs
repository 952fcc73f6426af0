//! A subset of Go's text templates, enough for `--format` in scripts.
//!
//! Text with actions in double braces: a path (`.State.Status`, `.`), a string or a number, and the
//! functions `json`, `index`, `join`, `len`, `lower`, `upper`, `println`, with arguments or behind
//! `|`. `\t` and `\n` mean tab and line end, as Docker's command line has it. Anything else
//! (`range`, `if`, variables) is an error that says so, never printed as it stands.
//!
//! A template is parsed once and applied to any number of JSON values.

use serde_json::Value;

use crate::error::Error;

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    /// Stages of a pipeline; each later one gets the result before it as its last argument.
    Action(Vec<Vec<Term>>),
}

#[derive(Debug, Clone, PartialEq)]
enum Term {
    Path(Vec<String>),
    Literal(Value),
    Function(String),
}

/// Functions that a template may name.
const FUNCTIONS: [&str; 7] = ["json", "index", "join", "len", "lower", "upper", "println"];

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// An unclosed action, or one that is not in the subset.
    pub fn parse(source: &str) -> Result<Template, Error> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = split_action(after)
                .ok_or_else(|| invalid(source, "an action is not closed with }}"))?;
            parts.push(Part::Text(unescape(before)));
            let action = action
                .trim()
                .trim_start_matches("- ")
                .trim_end_matches(" -")
                .trim();
            parts.push(Part::Action(parse_action(source, action)?));
            rest = after;
        }
        parts.push(Part::Text(unescape(rest)));
        Ok(Template { parts })
    }

    /// Applies the template to a value.
    ///
    /// # Errors
    /// A field that the value does not have, or a function with arguments that do not fit.
    pub fn apply(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Action(stages) => {
                    let mut result = None;
                    for stage in stages {
                        result = Some(run_stage(stage, value, result)?);
                    }
                    show(&result.unwrap_or(Value::Null), &mut out);
                }
            }
        }
        Ok(out)
    }

    /// The first field that each action names, as column titles of a table.
    pub fn fields(&self) -> Vec<String> {
        let paths = self.parts.iter().filter_map(|part| match part {
            Part::Action(stages) => stages.iter().flatten().find_map(|term| match term {
                Term::Path(path) => Some(path.last().cloned().unwrap_or_default()),
                _ => None,
            }),
            Part::Text(_) => None,
        });
        paths.collect()
    }
}

/// Splits at the `}}` that is not inside a string.
fn split_action(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None => {
                if let Some(after) = text.get(at..).and_then(|rest| rest.strip_prefix("}}")) {
                    return Some((text.get(..at)?, after));
                }
            }
        }
    }
    None
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn invalid(source: &str, why: &str) -> Error {
    Error::Usage(format!("template {source:?}: {why}"))
}

fn parse_action(source: &str, action: &str) -> Result<Vec<Vec<Term>>, Error> {
    let mut stages = vec![Vec::new()];
    let mut rest = action;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else {
            break;
        };
        let term;
        (term, rest) = match first {
            '|' => {
                stages.push(Vec::new());
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            '"' | '`' => {
                parse_string(rest).ok_or_else(|| invalid(source, "a string is not closed"))?
            }
            _ => parse_word(source, rest)?,
        };
        if let Some(stage) = stages.last_mut() {
            stage.push(term);
        }
    }
    if stages.iter().any(Vec::is_empty) {
        return Err(invalid(source, "an action is empty"));
    }
    Ok(stages)
}

fn parse_string(text: &str) -> Option<(Term, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        let (content, rest) = raw.split_once('`')?;
        return Some((Term::Literal(content.into()), rest));
    }
    // Go's interpreted strings and JSON's agree on all that templates use.
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let content = stream.next()?.ok()?;
    Some((
        Term::Literal(content.into()),
        text.get(stream.byte_offset()..)?,
    ))
}

fn parse_word<'a>(source: &str, text: &'a str) -> Result<(Term, &'a str), Error> {
    let end = text
        .find(|c: char| c.is_whitespace() || c == '|')
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if let Some(path) = word.strip_prefix('.') {
        let names: Vec<String> = path
            .split('.')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        if names
            .iter()
            .all(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
        {
            return Ok((Term::Path(names), rest));
        }
    }
    if let Ok(number) = word.parse::<i64>() {
        return Ok((Term::Literal(number.into()), rest));
    }
    if FUNCTIONS.contains(&word) {
        return Ok((Term::Function(word.to_owned()), rest));
    }
    Err(Error::NotSupported {
        what: format!("{word:?} in the template {source:?}"),
    })
}

fn run_stage(stage: &[Term], value: &Value, piped: Option<Value>) -> Result<Value, Error> {
    let (function, terms) = match stage.split_first() {
        Some((Term::Function(name), terms)) => (Some(name.as_str()), terms),
        _ => (None, stage),
    };
    let mut arguments = Vec::new();
    for term in terms {
        arguments.push(match term {
            Term::Path(path) => lookup(value, path)?,
            Term::Literal(literal) => literal.clone(),
            Term::Function(name) => {
                return Err(Error::Usage(format!(
                    "template function {name} is not first in its action"
                )));
            }
        });
    }
    arguments.extend(piped);
    match function {
        Some(name) => call(name, &arguments),
        None if arguments.len() == 1 => Ok(arguments.swap_remove(0)),
        None => Err(Error::Usage(
            "a template action has more than one value and no function".into(),
        )),
    }
}

fn lookup(value: &Value, path: &[String]) -> Result<Value, Error> {
    let mut current = value;
    for name in path {
        current = match current {
            Value::Object(fields) => match fields.get(name) {
                Some(field) => field,
                None => {
                    return Err(Error::Usage(format!(
                        "template: there is no field {name:?}"
                    )));
                }
            },
            Value::Null => return Ok(Value::Null),
            _ => {
                return Err(Error::Usage(format!(
                    "template: {name:?} is asked of something that has no fields"
                )));
            }
        };
    }
    Ok(current.clone())
}

fn call(name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let text = |value: &Value| {
        let mut out = String::new();
        show(value, &mut out);
        out
    };
    match (name, arguments) {
        ("json", [value]) => Ok(value.to_string().into()),
        ("lower", [value]) => Ok(text(value).to_lowercase().into()),
        ("upper", [value]) => Ok(text(value).to_uppercase().into()),
        ("len", [Value::Array(items)]) => Ok(items.len().into()),
        ("len", [Value::Object(fields)]) => Ok(fields.len().into()),
        ("len", [Value::String(string)]) => Ok(string.len().into()),
        ("len", [Value::Null]) => Ok(0.into()),
        ("join", [Value::Array(items), separator]) => Ok(items
            .iter()
            .map(text)
            .collect::<Vec<_>>()
            .join(&text(separator))
            .into()),
        ("join", [Value::Null, _]) => Ok("".into()),
        ("index", [value, keys @ ..]) if !keys.is_empty() => {
            let found = keys.iter().try_fold(value, |value, key| match key {
                Value::String(key) => value.get(key),
                key => value.get(usize::try_from(key.as_i64()?).ok()?),
            });
            // Go's index gives the zero value for a missing key of a map.
            Ok(found.cloned().unwrap_or_else(|| "".into()))
        }
        ("println", values) => Ok(format!(
            "{}\n",
            values.iter().map(text).collect::<Vec<_>>().join(" ")
        )
        .into()),
        _ => Err(Error::Usage(format!(
            "template function {name} cannot take these arguments"
        ))),
    }
}

/// Prints a value as Go's templates do.
fn show(value: &Value, out: &mut String) {
    let list = |out: &mut String, items: &mut dyn Iterator<Item = (Option<&str>, &Value)>| {
        for (at, (key, item)) in items.enumerate() {
            if at > 0 {
                out.push(' ');
            }
            if let Some(key) = key {
                out.push_str(key);
                out.push(':');
            }
            show(item, out);
        }
        out.push(']');
    };
    match value {
        Value::Null => out.push_str("<no value>"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            list(out, &mut items.iter().map(|item| (None, item)));
        }
        Value::Object(fields) => {
            out.push_str("map[");
            list(
                out,
                &mut fields.iter().map(|(key, item)| (Some(key.as_str()), item)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(template: &str, expected: &str) {
        let value = json!({"ID": "abc", "Names": "db", "State": {"Running": true, "ExitCode": 3, "Pid": null},
            "Cmd": ["sh", "-c"], "Labels": {"a.b": "}}c"}});
        let text = Template::parse(template).and_then(|parsed| parsed.apply(&value));
        assert_eq!(
            text.unwrap_or_else(|error| format!("error: {error}")),
            expected,
            "{template}"
        );
    }

    #[test]
    fn the_subset_works() {
        check("plain", "plain");
        check("{{.ID}} {{ .Names }}", "abc db");
        check("{{.ID}}\\t{{.State.ExitCode}}\\n", "abc\t3\n");
        check("{{.State.Running}}", "true");
        check("{{.State.Pid}}", "<no value>");
        check("{{.Cmd}} {{json .Cmd}}", r#"[sh -c] ["sh","-c"]"#);
        check("{{.State.Pid | json}}", "null");
        check(r#"{{index .Labels "a.b"}}"#, "}}c");
        check(r#"{{index .Labels "}}"}}."#, ".");
        check("{{index .Cmd 1}}", "-c");
        check(r#"{{join .Cmd " "}}"#, "sh -c");
        check("{{len .Cmd}}", "2");
        check("{{.Names | upper}}", "DB");
        check("{{.Labels}}", "map[a.b:}}c]");
    }

    #[test]
    fn what_is_not_in_the_subset_is_an_error() {
        check(
            "{{.ID",
            r#"error: template "{{.ID": an action is not closed with }}"#,
        );
        check("{{}}", r#"error: template "{{}}": an action is empty"#);
        check("{{.Nope}}", r#"error: template: there is no field "Nope""#);
        check(
            "{{range .Cmd}}",
            r#"error: "range" in the template "{{range .Cmd}}" is not supported yet by this version of rc"#,
        );
        check(
            "{{.ID .Names}}",
            "error: a template action has more than one value and no function",
        );
        check(
            "{{len .State.Running}}",
            "error: template function len cannot take these arguments",
        );
        check(
            "{{.ID.x}}",
            r#"error: template: "x" is asked of something that has no fields"#,
        );
    }
}
