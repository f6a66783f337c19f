//! The measurable part of the house rules, held against the whole tree.
//!
//! Each rule is shown first that it can fail: on samples that break it, and not on samples that
//! keep it. A failing rule prints all offenders as `file:line: text`. The limits and the lists
//! (which files may hold `unsafe`, who may depend on whom) are constants beside the rules.

mod tidy {
    pub(crate) mod code;
    mod packages;
    pub(crate) mod manifest;
    pub(crate) mod text;
    mod threads;
    pub(crate) mod tree;
}

use tidy::tree::{self, File, each};
use tidy::{code, manifest, text};

/// A file made up: its path and its text.
type Sample<'a> = (&'a str, &'a str);

/// The rule tells the bad samples from the good ones, and finds nothing in the tree.
#[track_caller]
fn check(rule: impl Fn(&[File]) -> Vec<String>, bad: &[Sample<'_>], good: &[Sample<'_>]) {
    discerns(&rule, bad, good);
    holds(rule);
}

/// The rule finds something in each bad sample, and nothing in the good ones.
#[track_caller]
fn discerns(rule: impl Fn(&[File]) -> Vec<String>, bad: &[Sample<'_>], good: &[Sample<'_>]) {
    let on = |(path, text): &Sample<'_>| rule(&[File::new(path, text)]);
    for sample in bad {
        assert!(!on(sample).is_empty(), "the rule does not see what is wrong: {sample:?}");
    }
    for sample in good {
        assert_eq!(on(sample), Vec::<String>::new(), "the rule sees ghosts: {sample:?}");
    }
}

/// The rule finds nothing in the tree.
#[track_caller]
fn holds(rule: impl Fn(&[File]) -> Vec<String>) {
    let found = rule(&tree::read());
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}

#[test]
fn files_open_with_their_purpose() {
    check(
        each(text::opens_with_its_purpose),
        &[("core/src/a.rs", ""), ("core/src/a.rs", "#![no_std]\n//! Late.\n")],
        &[("core/src/a.rs", "//! Here.\n"), ("ci/test.sh", "#!/usr/bin/env bash\n")],
    );
}

#[test]
fn files_have_80_to_350_lines_above_their_tests() {
    let tests = concat!("#[cfg(", "test)]\n");
    let (long, tested) = ("\n".repeat(351), "\n".repeat(350) + tests + "\n\n");
    let (short, enough) = ("\n".repeat(79) + tests + "\n\n", "\n".repeat(80));
    check(
        each(text::size),
        &[("core/src/a.rs", &long), ("tests/tests/a.rs", &long), ("core/src/a.rs", &short)],
        &[
            ("core/src/a.rs", &tested),
            ("core/src/a.rs", &enough),
            ("core/src/lib.rs", &short),
            ("tests/tests/a.rs", &short),
            ("core/tests/a.rs", &short),
            ("core/src/a/tests.rs", &long),
            ("README.md", &long),
        ],
    );
}

#[test]
fn files_listed_as_short_are_there_and_short() {
    let enough = "\n".repeat(80);
    discerns(
        |tree| text::listed_as_short(&[("core/src/a.rs", "tiny")], tree),
        &[("core/src/a.rs", &enough), ("core/src/b.rs", "")],
        &[("core/src/a.rs", "")],
    );
    holds(|tree| text::listed_as_short(text::SHORT, tree));
}

#[test]
fn lines_have_at_most_100_columns() {
    let (fits, wide) = ("ä".repeat(100), "ä".repeat(101));
    let (table, code) = (format!("| {wide} |"), format!("```\n{wide}\n```\n"));
    check(
        each(text::columns),
        &[("a.rs", &wide), ("a.md", &wide)],
        &[("a.rs", &fits), ("a.md", &fits), ("a.md", &table), ("a.md", &code), ("a.sh", &wide)],
    );
}

#[test]
fn functions_have_at_most_70_lines() {
    let of = |lines: usize| format!("fn f() {{{}}}", "\n".repeat(lines - 1));
    let within = |head: &str| format!("{head} {{ {} }}", of(71));
    check(
        each(code::function_length),
        &[
            ("a.rs", &of(71)),
            ("a.rs", &within("impl A")),
            ("a.rs", &within("trait A")),
            ("a.rs", &within("mod a")),
            ("a.rs", &within("fn g()")),
            ("a.rs", "fn does not parse"),
        ],
        &[("a.rs", &of(70)), ("a.rs", &format!("/*{}*/", of(71))), ("a.md", "no Rust")],
    );
}

#[test]
fn the_product_does_not_unwrap() {
    let tested = concat!("//! f().unwrap()\n#[cfg(", "test)]\nfn f() { g().unwrap() }\n");
    check(
        each(text::unwraps),
        &[("core/src/a.rs", "g().unwrap();"), ("cli/src/a/b.rs", "  .unwrap()?\n")],
        &[
            ("core/src/a.rs", tested),
            ("core/src/a.rs", "g().unwrap_or(0)"),
            ("core/src/a/tests.rs", "g().unwrap()"),
            ("core/src/a/tests/b.rs", "g().unwrap()"),
            ("tests/src/a.rs", "g().unwrap()"),
        ],
    );
}

#[test]
fn nothing_is_left_behind() {
    check(
        each(text::leftovers),
        &[
            ("a.rs", concat!("to", "do!()")),
            ("a.rs", concat!("x.map(|x| db", "g!(x))")),
            ("a.rs", concat!("// (FIX", "ME later)")),
        ],
        &[("a.rs", concat!("MASTO", "DON, to", "do, hack")), ("a.sh", concat!("mktemp a.XX", "X"))],
    );
}

#[test]
fn no_text_has_a_personal_pronoun() {
    check(
        each(text::persons),
        &[("a.rs", "/// He reads it.\n"), ("a.md", "his own"), ("a.rs", "\"ask him\"")],
        &[("a.rs", "/// The client: this, cache_her, the hers_of.\n"), ("a.lock", "he")],
    );
}

#[test]
fn doc_comments_have_a_verb_or_define() {
    check(
        each(text::headless),
        &[
            ("a.rs", "    /// What is lent.\n"),
            ("a.rs", "//! Whose it is.\n"),
            ("a.rs", "/// Opens\n/// That what is open.\n"),
            ("a.rs", "/// The same of all.\n"),
            ("a.rs", "/// How many there are. Are there any?\n"),
            ("a.rs", "/// How it is read\n"),
        ],
        &[
            ("a.rs", "/// Opens what is there, which stays.\n// Where it was.\n"),
            ("a.rs", "/// Whether it is open; Thatch, The sameness, However.\n"),
            ("a.rs", "/// How many are\n/// there? All.\n"),
        ],
    );
}

#[test]
fn no_test_is_ignored() {
    check(each(text::ignored_tests), &[("a.rs", concat!("  #[ig", "nore = \"slow\"]\n"))], &[]);
}

#[test]
fn unsafe_stands_in_named_files_only() {
    check(
        each(code::unsafe_places),
        &[
            ("core/src/a.rs", "fn f() { unsafe { g() } }"),
            ("cli/src/a.rs", "unsafe impl Send for A {}"),
            ("cli/src/a.rs", "m! { unsafe }"),
        ],
        &[
            ("core/src/a.rs", "//! unsafe\n#![forbid(unsafe_code)] const A: &str = \"unsafe\";"),
            ("providers/kvm/src/sys.rs", "unsafe fn f() {}"),
        ],
    );
    check(
        code::unsafe_files_are_needed,
        &[("providers/kvm/Cargo.toml", ""), ("providers/kvm/src/sys.rs", "// unsafe")],
        &[("guest/src/machine.rs", "unsafe fn f() {}"), ("core/src/lib.rs", "")],
    );
}

#[test]
fn the_documents_have_the_files_with_unsafe() {
    let some = "\n* [providers/kvm/src/sys.rs](providers/kvm/src/sys.rs): some\n";
    let all = code::shipped_unsafe_files().map(|path| format!("* [{path}]({path}): a\n"));
    let all = all.collect::<String>();
    let more = format!("{all}* [core/src/a.rs](core/src/a.rs): a file without unsafe code\n");
    check(
        each(code::unsafe_files_are_in_the_readme),
        &[("README.md", some), ("README.md", &more)],
        &[("README.md", &all), ("a.md", some)],
    );
    let list = |paths: &[&str]| format!("| have unsafe code: `{}`. |\n", paths.join("`, `"));
    let all = list(&code::shipped_unsafe_files().collect::<Vec<_>>());
    let more = all.replace("`. |", "`, `core/src/a.rs`. |");
    check(
        each(code::unsafe_files_are_in_architecture),
        &[("ARCHITECTURE.md", &more), ("ARCHITECTURE.md", &list(&["providers/kvm/src/sys.rs"]))],
        &[("ARCHITECTURE.md", &all), ("a.md", &more)],
    );
}

#[test]
fn unsafe_states_its_conditions() {
    let far = format!("// SAFETY: far away.{}unsafe impl A for B {{}}", "\n".repeat(11));
    let near = format!("// SAFETY: near.{}unsafe impl A for B {{}}", "\n".repeat(10));
    check(
        each(code::safety_comments),
        &[("a.rs", "fn f() { unsafe { g() } }"), ("a.rs", &far)],
        &[("a.rs", &near), ("a.rs", "/// # Safety\n///\n/// None.\nunsafe fn f() {}")],
    );
}

#[test]
fn allowed_lints_have_a_reason() {
    check(
        each(code::allow_reasons),
        &[
            ("a.rs", "#![allow(dead_code)]"),
            ("a.rs", "fn f() { #[expect(clippy::x, // reason\n)] let x = 1; }"),
            ("a.rs", "#[cfg_attr(test, allow(dead_code))] fn f() {}"),
        ],
        &[
            ("a.rs", "#[allow(\ndead_code,\nreason = \"for once\"\n)] fn f() {}"),
            ("a.rs", "#[cfg_attr(test, derive(Debug))] #[derive(Clone)] struct A;"),
        ],
    );
}

#[test]
fn crates_depend_only_on_permitted_crates() {
    check(
        each(manifest::arrows),
        &[
            ("core/Cargo.toml", "[dependencies]\nvmstrobe-sampler.workspace = true"),
            ("guest/Cargo.toml", "[dependencies]\na = { package = \"vmstrobe-core\" }"),
            ("sampler/Cargo.toml", "[target.'cfg(loom)'.dependencies]\nvmstrobe-guest = \"1\""),
            ("providers/host/Cargo.toml", "[build-dependencies]\nkvm-ioctls = \"1\""),
            ("providers/kvm/Cargo.toml", "[dependencies]\nvmstrobe-bpf.workspace = true"),
            ("providers/qmp/Cargo.toml", "[dependencies]\nvmstrobe-table.workspace = true"),
            ("core/Cargo.toml", "[dependencies"),
            ("cli/Cargo.toml", "[dependencies]\nvmstrobe-server.workspace = true"),
            ("tests/require/Cargo.toml", "[dependencies]\nvmstrobe-core.workspace = true"),
        ],
        &[
            ("providers/bpf/Cargo.toml", "[dependencies]\nvmstrobe-kvm.workspace = true"),
            ("providers/host/Cargo.toml", "[dev-dependencies]\nkvm-ioctls = \"1\""),
            ("guest/Cargo.toml", "[dependencies]\nkvm-ioctls = \"1\""),
            ("vmstrobe/Cargo.toml", "[dependencies]\nvmstrobe-guest = \"1\""),
        ],
    );
}

#[test]
fn a_dependency_has_one_place() {
    let tested = concat!("fn f() {}\n#[cfg(", "test)]\nuse kvm_ioctls::Kvm;\n");
    check(
        each(code::dependency_places),
        &[
            ("sampler/src/pool.rs", "use arc_swap::ArcSwap;"),
            ("cli/src/a.rs", "rayon::join(f, g);"),
            ("providers/kvm/src/sys.rs", "use kvm_ioctls::Kvm;"),
        ],
        &[
            ("sampler/src/publish.rs", "use arc_swap::ArcSwap;"),
            ("providers/kvm/src/sys.rs", tested),
            ("providers/kvm/src/own/tests.rs", "use kvm_ioctls::Kvm;"),
            ("sampler/src/pool.rs", "//! Unlike arc_swap.\nconst A: &str = \"rayon\";"),
        ],
    );
}

#[test]
fn foreign_text_is_printed_in_one_way() {
    let tested = concat!("fn f() {}\n#[cfg(", "test)]\nfn g() { println!(); }\n");
    check(
        each(code::printing_places),
        &[
            ("providers/kvm/src/a.rs", "fn f(name: &str) { eprintln!(\"{name}\") }"),
            ("cli/src/a.rs", "fn f(out: &mut Out) { out.as_is(name) }"),
            ("cli/src/a.rs", "fn f() { io::stdout().write_all(b) }"),
            ("server/src/a/b.rs", "fn f(c: char) -> bool { c.is_control() }"),
            ("core/src/hmp.rs", "fn f(name: &str) { name.escape_debug() }"),
        ],
        &[
            ("cli/src/out.rs", "fn f() { io::stderr().write_all(b) }"),
            ("core/src/text.rs", "fn f(c: char) -> bool { c.is_control() }"),
            ("core/src/a.rs", "//! println!\n/// println!()\nconst A: &str = \"println!\";"),
            ("providers/kvm/src/a.rs", tested),
            ("providers/kvm/src/a/tests.rs", "fn f() { println!() }"),
            ("tests/programs/a.rs", "fn f() { println!() }"),
        ],
    );
}

#[test]
fn nothing_names_this_machine() {
    check(
        each(text::machine_paths),
        &[("a.sh", concat!("cd /wo", "rk/x")), ("a.md", concat!("(/ho", "me/me)"))],
        &[("a.rs", concat!("target/wo", "rk/x"))],
    );
}

#[test]
fn nothing_names_a_registry() {
    let locked = concat!("source = \"registry+https://example/crates", ".io-index\"");
    check(
        each(text::registry_hosts),
        &[("a.sh", concat!("URIs: http://deb.debian", ".org/debian")), ("a.toml", locked)],
        &[("Cargo.lock", locked), ("fuzz/Cargo.lock", locked)],
    );
}

#[test]
fn the_two_commands_are_shown() {
    check(text::shown_commands, &[("README.md", "nothing")], &[]);
}
