//! The rules that read Rust as tokens or as syntax, so that comments and strings do not count.
//!
//! Syntax within a macro's braces is tokens only: what stands there is no function to measure.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Block, File as Syntax, ImplItemFn, ItemFn, Meta, Signature, TraitItemFn};

use super::text::is_product;
use super::tree::File;

const MAX_FUNCTION_LINES: usize = 70;

/// The most lines that may lie between an `unsafe` and its conditions above it.
const SAFETY_REACH: usize = 10;

/// The only files with `unsafe` in them.
const UNSAFE_FILES: &[&str] = &[
    "providers/host/src/host/fork.rs",
    "providers/host/src/sys.rs",
    "providers/kvm/src/sys.rs",
    "providers/kvm/src/ioctls.rs",
    "providers/bpf/src/sys.rs",
    "providers/bpf/src/sys/apart.rs",
    "providers/bpf/src/sys/writer.rs",
    "providers/table/src/map.rs",
    "guest/src/machine.rs",
    "benches/benches/ratios/words.rs",
    "examples/minimal_vmm.rs",
    "tests/src/hostile/memory.rs",
    "tests/tests/alloc.rs",
];

/// The folders of what is not shipped.
const UNSHIPPED: [&str; 3] = ["benches/", "examples/", "tests/"];

/// The places of dependencies: (crate, the only files or folder of the product that may name it).
const DEPENDENCY_PLACES: &[(&str, &[&str])] = &[
    ("aes", &["vmstrobe/src/demo/crypto.rs"]),
    ("base64", &["export/src/parquet/schema.rs"]),
    ("arc_swap", &["sampler/src/publish.rs"]),
    ("crossbeam", &["sampler/src/subscribe.rs"]),
    ("hdrhistogram", &["export/src/histlog.rs", "sampler/src/health.rs"]),
    ("humantime", &["cli/src/text.rs", "export/src/text.rs", "vmstrobe/src/record/place.rs"]),
    ("kvm_bindings", &["guest/src/"]),
    ("kvm_ioctls", &["guest/src/", "providers/kvm/src/ioctls.rs"]),
    ("libc", &["cli/src/privileges/seccomp.rs"]),
    (
        "linux_raw_sys",
        &[
            "providers/host/src/host/fork.rs",
            "providers/host/src/sys.rs",
            "providers/bpf/src/sys.rs",
        ],
    ),
    ("lz4_flex", &["export/src/arrows/codec.rs"]),
    ("seccompiler", &["cli/src/privileges/seccomp.rs"]),
    (
        "memmap2",
        &[
            "guest/src/machine.rs",
            "providers/bpf/src/sys/writer.rs",
            "providers/table/src/map.rs",
            "tests/src/hostile/memory.rs",
        ],
    ),
    ("ratatui_core", &["cli/src/top/"]),
    ("ratatui_crossterm", &["cli/src/top/"]),
    ("rayon", &["sampler/src/fanout.rs"]),
    ("regex_lite", &["core/src/names.rs"]),
    ("signal_hook", &["cli/src/signals.rs"]),
    ("strsim", &["vmstrobe/src/unknown_name.rs"]),
    ("unicode_width", &["cli/src/width.rs"]),
    ("zstd", &["export/src/arrows/codec.rs", "export/src/parquet/codec.rs"]),
];

/// The words of printing, and of what is printable: (word, where alone the product may name it).
const PRINTING_PLACES: &[(&str, &[&str])] = &[
    ("print", &[]),
    ("println", &[]),
    ("eprint", &[]),
    ("eprintln", &[]),
    ("stderr", &["cli/src/out.rs"]),
    // Elsewhere it is asked whether it is a terminal, and how wide.
    (
        "stdout",
        &[
            "cli/src/out.rs",
            "cli/src/main.rs",
            "cli/src/terminal.rs",
            "cli/src/error.rs",
            // The screen, which is drawn from cells.
            "cli/src/top/tty.rs",
        ],
    ),
    // Help, and the sequences of the screen.
    ("as_is", &["cli/src/out.rs", "cli/src/main.rs", "cli/src/terminal.rs"]),
    ("is_control", &["core/src/text.rs"]),
    ("is_ascii_control", &["core/src/text.rs"]),
    ("escape_debug", &["core/src/text.rs"]),
    ("escape_default", &["core/src/text.rs"]),
    ("escape_unicode", &["core/src/text.rs"]),
    ("REPLACEMENT_CHARACTER", &["core/src/text.rs"]),
];

/// A function fits a screen: from its `fn` to its closing brace.
pub(crate) fn function_length(file: &File) -> Vec<String> {
    with_syntax(file, |syntax| {
        let mut lengths = Lengths { file, found: Vec::new() };
        lengths.visit_file(syntax);
        lengths.found
    })
}

/// Each `allow` and `expect` of a lint says why.
pub(crate) fn allow_reasons(file: &File) -> Vec<String> {
    with_syntax(file, |syntax| {
        let mut allows = Allows { file, found: Vec::new() };
        allows.visit_file(syntax);
        allows.found
    })
}

/// Checks that `unsafe` stands only in the files that are listed for it.
pub(crate) fn unsafe_places(file: &File) -> Vec<String> {
    if UNSAFE_FILES.contains(&file.path.as_str()) {
        return Vec::new();
    }
    named(file, "unsafe").into_iter().map(|line| file.at(line, "unsafe")).collect()
}

/// Each file that is named for `unsafe` is there and has some, if its crate is there.
pub(crate) fn unsafe_files_are_needed(tree: &[File]) -> Vec<String> {
    let stale = |path: &str| {
        let package = path.split_inclusive('/').next().unwrap_or_default();
        let listed = tree.iter().find(|file| file.path == path);
        tree.iter().any(|file| file.path.starts_with(package))
            && listed.is_none_or(|file| named(file, "unsafe").is_empty())
    };
    let listed = UNSAFE_FILES.iter().filter(|path| stale(path));
    listed.map(|path| format!("{path}:1: not there, or without unsafe")).collect()
}

/// The files with `unsafe` that users run.
pub(crate) fn shipped_unsafe_files() -> impl Iterator<Item = &'static str> {
    let is_shipped = |path: &&str| !UNSHIPPED.iter().any(|folder| path.starts_with(folder));
    UNSAFE_FILES.iter().copied().filter(is_shipped)
}

/// The README names exactly these files, each in a line of a list.
pub(crate) fn unsafe_files_are_in_the_readme(file: &File) -> Vec<String> {
    if file.path != "README.md" {
        return Vec::new();
    }
    let entry = |line: &str| {
        let (path, link) = line.strip_prefix("* [")?.split_once("](")?;
        (path.ends_with(".rs") && link.starts_with(path)).then(|| path.to_owned())
    };
    unequal(file, file.text.lines().filter_map(entry).collect())
}

/// Checks that ARCHITECTURE names exactly these files, in the line on unsafe code.
pub(crate) fn unsafe_files_are_in_architecture(file: &File) -> Vec<String> {
    if file.path != "ARCHITECTURE.md" {
        return Vec::new();
    }
    let line = file.text.lines().find(|line| line.contains("have unsafe code: ")).unwrap_or("");
    let words = line.split('`').filter(|word| word.ends_with(".rs"));
    // The tests that enforce it stand in the same line, behind what it says.
    unequal(file, words.map(str::to_owned).filter(|path| !path.starts_with("tests")).collect())
}

/// The files with `unsafe` that a document does not name, and those that it names wrongly.
fn unequal(document: &File, named: Vec<String>) -> Vec<String> {
    let unnamed = shipped_unsafe_files().filter(|path| !named.iter().any(|name| name == path));
    let unnamed = unnamed.map(|path| format!("{path} has unsafe code and is not named"));
    let wrong = named.iter().filter(|name| !shipped_unsafe_files().any(|path| path == *name));
    let wrong = wrong.map(|name| format!("{name} is named and has no unsafe code"));
    unnamed.chain(wrong).map(|text| document.at(1, text)).collect()
}

/// Each `unsafe` has its conditions right above it.
pub(crate) fn safety_comments(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let stated = |line: usize| {
        let above = &lines[line.saturating_sub(SAFETY_REACH + 1)..line];
        above.iter().any(|text| text.contains("SAFETY:") || text.contains("# Safety"))
    };
    let bare = named(file, "unsafe").into_iter().filter(|&line| !stated(line));
    bare.map(|line| file.at(line, lines[line - 1].trim())).collect()
}

/// A dependency is named only in its own place, so that another takes its place by one edit. What
/// only tests use is their own business.
pub(crate) fn dependency_places(file: &File) -> Vec<String> {
    if file.path.contains("/src/") { misplaced(file, DEPENDENCY_PLACES) } else { Vec::new() }
}

/// Checks that foreign text is printed only where it is made printable, and by one function.
pub(crate) fn printing_places(file: &File) -> Vec<String> {
    let is_test = file.path.split('/').any(|part| part == "tests" || part == "tests.rs");
    let is_meant = is_product(&file.path) && !is_test;
    if is_meant { misplaced(file, PRINTING_PLACES) } else { Vec::new() }
}

/// The words that a file names above its tests although it is not their place.
fn misplaced(file: &File, words: &[(&str, &[&str])]) -> Vec<String> {
    let end = file.lines_above_tests().last().map_or(0, |(line, _)| line);
    let names = names(file).into_iter().filter(|(_, line)| *line <= end);
    let found = names.filter_map(|(name, line)| {
        let (_, places) = words.iter().find(|(word, _)| *word == name)?;
        let is_its_place = places.iter().any(|place| file.path.starts_with(place));
        (!is_its_place).then(|| file.at(line, format!("{name}, not in {places:?}")))
    });
    found.collect()
}

struct Lengths<'a> {
    file: &'a File,
    found: Vec<String>,
}

impl Lengths<'_> {
    fn measure(&mut self, signature: &Signature, block: &Block) {
        let first = signature.fn_token.span.start().line;
        let lines = block.brace_token.span.close().end().line - first + 1;
        if lines > MAX_FUNCTION_LINES {
            let text = format!("{} has {lines} lines", signature.ident);
            self.found.push(self.file.at(first, text));
        }
    }
}

impl<'ast> Visit<'ast> for Lengths<'_> {
    fn visit_item_fn(&mut self, node: &'ast ItemFn) {
        self.measure(&node.sig, &node.block);
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast ImplItemFn) {
        self.measure(&node.sig, &node.block);
        visit::visit_impl_item_fn(self, node);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast TraitItemFn) {
        if let Some(block) = &node.default {
            self.measure(&node.sig, block);
        }
        visit::visit_trait_item_fn(self, node);
    }
}

struct Allows<'a> {
    file: &'a File,
    found: Vec<String>,
}

impl<'ast> Visit<'ast> for Allows<'_> {
    fn visit_attribute(&mut self, node: &'ast Attribute) {
        let Meta::List(list) = &node.meta else { return };
        let inner = identifiers(list.tokens.clone());
        let has = |word: &str| inner.iter().any(|(name, _)| name == word);
        let allows = list.path.is_ident("allow")
            || list.path.is_ident("expect")
            || list.path.is_ident("cfg_attr") && (has("allow") || has("expect"));
        if allows && !has("reason") {
            let line = node.pound_token.span.start().line;
            self.found.push(self.file.at(line, list.tokens.to_string()));
        }
    }
}

/// Runs a rule on a Rust file's syntax. A file that does not parse is a finding.
fn with_syntax(file: &File, rule: impl Fn(&Syntax) -> Vec<String>) -> Vec<String> {
    if !file.is_rust() {
        return Vec::new();
    }
    match syn::parse_file(&file.text) {
        Ok(syntax) => rule(&syntax),
        Err(error) => vec![file.at(error.span().start().line, error)],
    }
}

/// The lines on which a Rust file names this identifier or keyword, in order.
fn named(file: &File, word: &str) -> Vec<usize> {
    names(file).into_iter().filter(|(name, _)| name == word).map(|(_, line)| line).collect()
}

/// The identifiers and keywords of a Rust file, with their lines.
fn names(file: &File) -> Vec<(String, usize)> {
    // What is no token stream is a finding of the rules that parse.
    let tokens =
        if file.is_rust() { file.text.parse().unwrap_or_default() } else { TokenStream::new() };
    identifiers(tokens)
}

/// Returns all identifiers and keywords with their lines, also those within brackets.
fn identifiers(tokens: TokenStream) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => found.extend(identifiers(group.stream())),
            TokenTree::Ident(name) => found.push((name.to_string(), name.span().start().line)),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    found
}
