//! Prints interfaces in varlink's interface definition language.
//!
//! People read a description first, so every comment stands on a line of its own above what it
//! describes, and every field on its own line. The grammar is that of
//! <https://varlink.org/Interface-Definition>. Errors come from [`crate::error::ROWS`].

use std::fmt::Write;

use zlink_core::idl::{CustomType, Type};

use crate::error::{self, ErrorRow};
use crate::table::{Interface, Kind, Method};

/// The description of an interface.
pub fn print(interface: &Interface) -> String {
    let mut out = String::new();
    comments(&mut out, "", interface.docs.iter().copied());
    // Writing to a string cannot fail.
    let _ = writeln!(out, "interface {}", interface.name);
    for ty in interface.types {
        out.push('\n');
        custom_type(&mut out, ty);
    }
    for method in interface.methods {
        out.push('\n');
        print_method(&mut out, method);
    }
    for row in error::ROWS {
        if row
            .name
            .rsplit_once('.')
            .is_some_and(|(prefix, _)| prefix == interface.name)
        {
            out.push('\n');
            print_error(&mut out, row);
        }
    }
    out
}

fn print_method(out: &mut String, method: &Method) {
    comments(out, "", method.docs.iter().copied());
    match method.kind {
        Kind::Once => {}
        // The wording of systemd's interfaces.
        Kind::Stream => out.push_str("# [Supports 'more' flag]\n"),
        Kind::Upgrade => out.push_str("# [Requires 'upgrade' flag]\n"),
    }
    let _ = write!(out, "method {}", last_part(method.name));
    object(out, method.input);
    out.push_str(" -> ");
    object(out, method.output);
    out.push('\n');
}

fn print_error(out: &mut String, row: &ErrorRow) {
    comments(out, "", row.docs.iter().copied());
    let message = (
        " Complete text for people.",
        "message".to_owned(),
        "string".to_owned(),
    );
    let _ = write!(
        out,
        "error {} (\n  #{}\n  {}: {}",
        last_part(row.name),
        message.0,
        message.1,
        message.2
    );
    for field in row.fields {
        out.push_str(",\n");
        comments(out, "  ", field.docs.iter().copied());
        let _ = write!(out, "  {}: {}", camel_case(field.name), type_name(field.ty));
    }
    out.push_str("\n)\n");
}

fn custom_type(out: &mut String, ty: &CustomType<'_>) {
    if let Some(object_type) = ty.as_object() {
        comments(
            out,
            "",
            object_type.comments().map(|comment| comment.text()),
        );
        let _ = write!(out, "type {} ", object_type.name());
        object(out, ty);
        out.push('\n');
    }
    if let Some(enumeration) = ty.as_enum() {
        comments(
            out,
            "",
            enumeration.comments().map(|comment| comment.text()),
        );
        let _ = write!(out, "type {} (", enumeration.name());
        for (index, variant) in enumeration.variants().enumerate() {
            out.push_str(if index == 0 { "\n" } else { ",\n" });
            comments(out, "  ", variant.comments().map(|comment| comment.text()));
            let _ = write!(out, "  {}", variant.name());
        }
        out.push_str("\n)\n");
    }
}

/// The fields of an object in parentheses, without a line break after them.
fn object(out: &mut String, ty: &CustomType<'_>) {
    out.push('(');
    let mut empty = true;
    for field in ty.as_object().iter().flat_map(|object| object.fields()) {
        out.push_str(if empty { "\n" } else { ",\n" });
        empty = false;
        comments(out, "  ", field.comments().map(|comment| comment.text()));
        let _ = write!(out, "  {}: {}", field.name(), type_name(field.ty()));
    }
    out.push_str(if empty { ")" } else { "\n)" });
}

fn type_name(ty: &Type<'_>) -> String {
    match ty {
        Type::Bool => "bool".to_owned(),
        Type::Int => "int".to_owned(),
        Type::Float => "float".to_owned(),
        Type::String => "string".to_owned(),
        Type::Optional(inner) => format!("?{}", type_name(inner.inner())),
        Type::Array(inner) => format!("[]{}", type_name(inner.inner())),
        Type::Map(inner) => format!("[string]{}", type_name(inner.inner())),
        Type::Custom(name) => name.to_string(),
        // None of our types derives an inline one.
        Type::ForeignObject | Type::Any | Type::Enum(_) | Type::Object(_) => "object".to_owned(),
    }
}

fn comments<'a>(out: &mut String, indent: &str, lines: impl Iterator<Item = &'a str>) {
    for line in lines {
        let _ = writeln!(out, "{indent}# {}", line.trim());
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::{INTERFACES, SYSTEM};

    #[test]
    fn a_foreign_parser_accepts_every_interface() {
        for interface in INTERFACES {
            let text = print(interface);
            let parsed = zlink_core::idl::Interface::try_from(text.as_str());
            let parsed = parsed.unwrap_or_else(|error| panic!("{text}\n{error}"));
            assert_eq!(parsed.methods().count(), interface.methods.len(), "{text}");
            assert_eq!(
                parsed.custom_types().count(),
                interface.types.len(),
                "{text}"
            );
        }
    }

    #[test]
    fn every_named_type_is_declared_in_its_interface() {
        for interface in INTERFACES {
            let text = print(interface);
            let declared: BTreeSet<_> = interface
                .types
                .iter()
                .map(|ty| ty.name().to_string())
                .collect();
            let mentioned: BTreeSet<_> = text
                .lines()
                .filter(|line| !line.trim_start().starts_with('#'))
                .filter_map(|line| line.split_once(": "))
                .map(|(_, ty)| {
                    ty.trim_matches(['?', '[', ']', ','])
                        .trim_start_matches("string]")
                        .to_owned()
                })
                .filter(|ty| ty.starts_with(char::is_uppercase))
                .collect();
            assert_eq!(declared, mentioned, "{}", interface.name);
        }
    }

    #[test]
    fn every_error_belongs_to_an_interface() {
        for row in error::ROWS {
            let interface = row.name.rsplit_once('.').unwrap().0;
            assert!(
                INTERFACES.iter().any(|known| known.name == interface),
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn comments_stand_above_what_they_describe() {
        let text = print(&SYSTEM);
        assert!(
            text.starts_with(
                "# The daemon and the host that it runs on.\ninterface io.rcd.System\n"
            ),
            "{text}"
        );
        let id_range = "# An id range of the user namespace.\ntype IdRange (\n  # First id inside.\n  containerId: int,\n";
        assert!(text.contains(id_range), "{text}");
        assert!(
            text.contains("\n# Answers.\nmethod Ping() -> ()\n"),
            "{text}"
        );
        let unsupported = "error HostUnsupported (\n  # Complete text for people.\n  message: string,\n  # What is missing.\n  what: string\n)\n";
        assert!(text.contains(unsupported), "{text}");
    }

    #[test]
    fn field_names_become_camel_case() {
        assert_eq!(camel_case("exit_code"), "exitCode");
        assert_eq!(camel_case("id"), "id");
    }
}
