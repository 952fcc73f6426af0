//! Columns of text, as wide as their widest cell, three spaces apart, as Docker prints them.

use crate::text;

/// Spaces between two columns.
const GAP: usize = 3;

/// Renders a header and rows. Cells are made harmless for a terminal.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| text::printable(cell)).collect())
        .collect();
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells
            .chain(header.get(column).map(|title| title.chars().count()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut out = String::new();
    push_line(&mut out, header.iter().copied(), &widths);
    for row in &rows {
        push_line(&mut out, row.iter().map(String::as_str), &widths);
    }
    out
}

fn push_line<'a>(out: &mut String, cells: impl Iterator<Item = &'a str>, widths: &[usize]) {
    let mut line = String::new();
    for (cell, width) in cells.zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(
            ' ',
            width.saturating_sub(cell.chars().count()) + GAP,
        ));
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_spaces() {
        let rows = vec![
            vec!["a".into(), "é".into(), String::new()],
            vec!["long".into(), "\u{1b}x".into(), "z".into()],
        ];
        assert_eq!(
            render(&["ID", "NAME", "X"], &rows),
            "ID     NAME      X\na      é\nlong   \\u{1b}x   z\n"
        );
    }
}
