//! Source files: lengths, docs at the top, the fence around `unsafe`, unfinished work.

use syn::{
    spanned::Spanned,
    visit::{self, Visit},
};

use super::Finding;

/// Lines of a file, its tests included.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, from `fn` to its closing brace: one screen.
const FUNCTION_LINES_MAX: usize = 70;
/// Where `unsafe` may stand.
const UNSAFE_FOLDER: &str = "daemon/sys/";

/// Words that say that something is not finished, or that name one machine. Written in halves, for
/// this file is checked too.
const BANNED: [(&str, &str); 7] = [
    ("TO", "DO"),
    ("FIX", "ME"),
    ("XX", "X:"),
    ("HA", "CK"),
    ("/wo", "rk/main"),
    ("/home/", "rcd-"),
    ("/ro", "ot/.cargo"),
];

/// Checks any text file of the project.
#[must_use]
pub fn check_text(name: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if name.ends_with(".lock") || name.starts_with("LICENSE") {
        return findings;
    }
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{name}:{}", number + 1);
        for (first, second) in BANNED {
            let word = format!("{first}{second}");
            if line.contains(&word) {
                findings.push(Finding::new(place(), format!("says {word:?}")));
            }
        }
        if line.ends_with([' ', '\t']) {
            findings.push(Finding::new(place(), "ends with white space"));
        }
    }
    findings
}

/// Checks a Rust file.
#[must_use]
pub fn check_rust(name: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        let what = format!("has {lines} lines, more than {FILE_LINES_MAX}");
        findings.push(Finding::new(name, what));
    }
    if !text.starts_with("//!") {
        findings.push(Finding::new(
            name,
            "does not say at its top what it is for (//!)",
        ));
    }
    match syn::parse_file(text) {
        Ok(file) => {
            let mut visitor = Visitor { name, findings };
            visitor.visit_file(&file);
            findings = visitor.findings;
        }
        Err(error) => findings.push(Finding::new(name, format!("does not parse: {error}"))),
    }
    findings
}

struct Visitor<'a> {
    name: &'a str,
    findings: Vec<Finding>,
}

impl Visitor<'_> {
    fn report(&mut self, line: usize, what: String) {
        self.findings
            .push(Finding::new(format!("{}:{line}", self.name), what));
    }

    fn function(&mut self, signature: &syn::Signature, end: usize) {
        // From `fn`: attributes and docs do not count.
        let start = signature.span().start().line;
        let lines = end.saturating_sub(start) + 1;
        if lines > FUNCTION_LINES_MAX {
            let what = format!(
                "{} has {lines} lines, more than {FUNCTION_LINES_MAX}",
                signature.ident
            );
            self.report(start, what);
        }
        if signature.unsafety.is_some() {
            self.fence(start);
        }
    }

    fn fence(&mut self, line: usize) {
        if !self.name.starts_with(UNSAFE_FOLDER) {
            self.report(line, format!("unsafe outside of {UNSAFE_FOLDER}"));
        }
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, item.block.span().end().line);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, item.block.span().end().line);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig, item.span().end().line);
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr_unsafe(&mut self, item: &'ast syn::ExprUnsafe) {
        self.fence(item.unsafe_token.span.start().line);
        visit::visit_expr_unsafe(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let Some(token) = item.unsafety {
            self.fence(token.span.start().line);
        }
        visit::visit_item_impl(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::{FILE_LINES_MAX, check_rust, check_text};

    fn rust(name: &str, text: &str) -> Vec<String> {
        check_rust(name, text)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_sound_file_passes() {
        assert_eq!(
            rust("a.rs", "//! What for.\nfn short() {}\n"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn missing_docs_at_the_top_are_found() {
        assert_eq!(rust("a.rs", "fn short() {}\n").len(), 1);
    }

    #[test]
    fn long_files_and_functions_are_found() {
        let body = |lines: usize| "    step();\n".repeat(lines);
        let function = |lines| format!("//! For.\nfn long() {{\n{}}}\n", body(lines));
        assert!(rust("a.rs", &function(68)).is_empty());
        assert!(rust("a.rs", &function(69))[0].starts_with("a.rs:2: long has 71 lines"));
        let method = format!(
            "//! For.\nstruct A;\nimpl A {{\nfn m() {{\n{}}}\n}}\n",
            body(69)
        );
        assert_eq!(rust("a.rs", &method).len(), 1);
        let file = format!("//! For.\n{}", "const A: u8 = 0;\n".repeat(FILE_LINES_MAX));
        assert_eq!(rust("a.rs", &file).len(), 1);
    }

    #[test]
    fn unsafe_is_found_outside_of_its_folder() {
        let texts = [
            "//! For.\nfn f() { unsafe { g() } }\n",
            "//! For.\nunsafe fn f() {}\n",
            "//! For.\nunsafe impl Send for A {}\n",
        ];
        for text in texts {
            assert_eq!(rust("daemon/init/src/a.rs", text).len(), 1, "{text}");
            assert!(rust("daemon/sys/src/a.rs", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn unfinished_work_is_found() {
        let text = ["// TO", "DO: later\nsound\nspace \n"].concat();
        assert_eq!(check_text("a.rs", &text).len(), 2);
        assert_eq!(check_text("LICENSE-MIT", &text).len(), 0);
    }

    #[test]
    fn what_does_not_parse_is_found() {
        assert_eq!(rust("a.rs", "//! For.\nfn {\n").len(), 1);
    }
}
