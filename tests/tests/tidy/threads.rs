//! The rule that the product's threads are started in one way, by `ThreadStart`, so that a program
//! has its function run in each of them.
//!
//! It is read off the syntax: an import from `std::thread` of something that starts threads, or a
//! path such as `thread::spawn`. A start within a macro's braces is not seen.

use syn::visit::{self, Visit};
use syn::{Ident, Path, UsePath, UseTree};

use super::text::is_product;
use super::tree::{File, each};
use crate::check;

/// The items of `std::thread` by which threads are started.
const STARTERS: [&str; 3] = ["Builder", "scope", "spawn"];

/// The files of the product that start threads in another way: (file, reason).
const OTHERWISE: &[(&str, &str)] = &[
    ("core/src/threads.rs", "it is ThreadStart"),
    ("guest/src/demo.rs", "the guests' crate depends on none of ours; its threads run vCPUs"),
    ("providers/host/src/broker.rs", "its threads are there to keep their capabilities"),
    ("providers/bpf/src/sys/apart.rs", "its thread has the broker's capabilities, and is scoped"),
    ("server/src/qmp/server/accepting.rs", "it gives ThreadStart a builder with a smaller stack"),
    ("cli/src/privileges/launcher.rs", "a measured command gets the capabilities of its thread"),
];

/// Checks that a file of the product starts no thread but by `ThreadStart`.
fn starts(file: &File) -> Vec<String> {
    let is_listed = OTHERWISE.iter().any(|(path, _)| *path == file.path);
    if is_listed { Vec::new() } else { found(file) }
}

/// Checks that each listed file is there and starts threads, if its crate is there.
fn listed(tree: &[File]) -> Vec<String> {
    let is_stale = |path: &str| {
        let package = path.split_inclusive('/').next().unwrap_or_default();
        let file = tree.iter().find(|file| file.path == path);
        tree.iter().any(|file| file.path.starts_with(package))
            && file.is_none_or(|file| found(file).is_empty())
    };
    let stale = OTHERWISE.iter().filter(|(path, _)| is_stale(path));
    stale.map(|(path, why)| format!("{path}:1: starts no thread, but listed: {why}")).collect()
}

/// Returns the places above a file's tests where it names something that starts threads.
fn found(file: &File) -> Vec<String> {
    let is_test = file.path.split('/').any(|part| part == "tests" || part == "tests.rs");
    if !file.is_rust() || !is_product(&file.path) || is_test {
        return Vec::new();
    }
    let mut starts = Starts::default();
    // A file that does not parse is a finding of the rules on its functions.
    if let Ok(syntax) = syn::parse_file(&file.text) {
        starts.visit_file(&syntax);
    }
    let end = file.lines_above_tests().last().map_or(0, |(line, _)| line);
    let above = starts.named.into_iter().filter(|(line, _)| *line <= end);
    above.map(|(line, name)| file.at(line, format!("thread::{name}, not ThreadStart"))).collect()
}

/// The lines on which something that starts threads is named.
#[derive(Default)]
struct Starts {
    named: Vec<(usize, String)>,
}

impl Starts {
    fn note(&mut self, name: &Ident) {
        if STARTERS.iter().any(|starter| name == starter) {
            self.named.push((name.span().start().line, name.to_string()));
        }
    }

    fn imported(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Name(name) => self.note(&name.ident),
            UseTree::Rename(renamed) => self.note(&renamed.ident),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.imported(tree)),
            UseTree::Glob(all) => {
                self.named.push((all.star_token.spans[0].start().line, "*".to_owned()))
            }
            UseTree::Path(_) => {}
        }
    }
}

impl<'ast> Visit<'ast> for Starts {
    fn visit_use_path(&mut self, node: &'ast UsePath) {
        if node.ident == "thread" {
            self.imported(&node.tree);
        }
        visit::visit_use_path(self, node);
    }

    fn visit_path(&mut self, node: &'ast Path) {
        let names: Vec<&Ident> = node.segments.iter().map(|segment| &segment.ident).collect();
        for pair in names.windows(2).filter(|pair| pair[0] == "thread") {
            self.note(pair[1]);
        }
        visit::visit_path(self, node);
    }
}

#[test]
fn threads_are_started_in_one_way() {
    let tested = concat!("fn f() {}\n#[cfg(", "test)]\nfn g() { std::thread::spawn(h); }\n");
    check(
        each(starts),
        &[
            ("core/src/a.rs", "fn f() { std::thread::spawn(g); }"),
            ("cli/src/a.rs", "fn f() { thread::scope(|scope| g(scope)); }"),
            ("vmstrobe/src/a.rs", "fn f() { thread::Builder::new().spawn(g); }"),
            ("providers/kvm/src/a.rs", "use std::thread::{self, Builder as B};"),
            ("sampler/src/a.rs", "use std::{io, thread::{JoinHandle, spawn}};"),
            ("server/src/a.rs", "use std::thread::*;"),
        ],
        &[
            ("core/src/threads.rs", "use std::thread::Builder;"),
            ("cli/src/a.rs", "use std::thread::{self, JoinHandle};"),
            ("cli/src/a.rs", "fn f() { threads.spawn(g); thread::sleep(h); scope(i) }"),
            ("sampler/src/a.rs", tested),
            ("sampler/src/a/tests.rs", "fn f() { thread::spawn(g); }"),
            ("sampler/tests/a.rs", "fn f() { thread::spawn(g); }"),
            ("examples/a.rs", "fn f() { thread::spawn(g); }"),
        ],
    );
    check(
        listed,
        &[("core/Cargo.toml", ""), ("core/src/threads.rs", "use std::thread::Thread;")],
        &[("core/src/threads.rs", "use std::thread::Builder;"), ("sampler/Cargo.toml", "")],
    );
}
