//! Lists of objects in the form that `--format` asks for.
//!
//! `table` (or nothing) is Docker's table, `table TEMPLATE` a table of the columns that it names,
//! `json` one object a line, anything else a template applied to each.

use serde_json::Value;

use super::table;
use super::template::Template;
use crate::error::Error;
use crate::text;

/// A default table: titles, and the fields that stand below them.
pub type Columns<'a> = &'a [(&'a str, &'a str)];

/// Renders a list.
///
/// # Errors
/// A template that cannot be used.
pub fn many(format: Option<&str>, columns: Columns<'_>, items: &[Value]) -> Result<String, Error> {
    match format.unwrap_or("table").trim() {
        "" | "table" => {
            let cell = |item: &Value, field: &str| {
                item.get(field)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            let row = |item: &Value| columns.iter().map(|(_, field)| cell(item, field)).collect();
            let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
            Ok(table::render(
                &titles,
                &items.iter().map(row).collect::<Vec<_>>(),
            ))
        }
        "json" => Ok(items.iter().map(|item| format!("{item}\n")).collect()),
        format => match format.strip_prefix("table ") {
            Some(template) => table_of(template, columns, items),
            None => {
                let template = Template::parse(format)?;
                let lines = items.iter().map(|item| Ok(printed(&template.apply(item)?)));
                lines.collect()
            }
        },
    }
}

/// Renders one object: `json`, or a template.
///
/// # Errors
/// As [`many`].
pub fn one(format: &str, value: &Value) -> Result<String, Error> {
    match format {
        "json" => Ok(format!("{value}\n")),
        format => Ok(printed(&Template::parse(format)?.apply(value)?)),
    }
}

/// A line made harmless, tabs excepted.
fn printed(line: &str) -> String {
    let cells: Vec<String> = line.split('\t').map(text::printable_lines).collect();
    cells.join("\t") + "\n"
}

fn table_of(template: &str, columns: Columns<'_>, items: &[Value]) -> Result<String, Error> {
    let template = Template::parse(template)?;
    let title = |field: &String| {
        let known = columns.iter().find(|(_, name)| name == field);
        known.map_or_else(|| field.to_uppercase(), |(title, _)| (*title).to_owned())
    };
    let titles: Vec<String> = template.fields().iter().map(title).collect();
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let rows = items.iter().map(|item| {
        Ok(template
            .apply(item)?
            .split('\t')
            .map(str::to_owned)
            .collect())
    });
    Ok(table::render(
        &titles,
        &rows.collect::<Result<Vec<_>, Error>>()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_format_renders() {
        let columns: Columns<'_> = &[("CONTAINER ID", "ID"), ("NAMES", "Names")];
        let items = [json!({"ID": "a1", "Names": "x\u{1b}y"})];
        let render = |format| many(format, columns, &items).unwrap();
        assert_eq!(
            render(None),
            "CONTAINER ID   NAMES\na1             x\\u{1b}y\n"
        );
        assert_eq!(
            render(Some("table {{.Names}}\\t{{.ID}}")),
            "NAMES      CONTAINER ID\nx\\u{1b}y   a1\n"
        );
        assert_eq!(render(Some("{{.ID}}\\t{{.Names}}")), "a1\tx\\u{1b}y\n");
        assert_eq!(
            render(Some("json")),
            "{\"ID\":\"a1\",\"Names\":\"x\\u001by\"}\n"
        );
    }
}
