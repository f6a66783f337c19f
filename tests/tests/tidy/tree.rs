//! The files that the rules look at: all text of the tree, but what is built or thrown away.

use std::fmt::Display;
use std::fs;
use std::path::Path;

/// The folders of version control, the compiler and the fuzzer, which the rules skip.
const SKIPPED: &[&str] = &[".git", "target", "fuzz/target", "fuzz/corpus", "fuzz/artifacts"];

/// A text file, by its path from the root of the repository.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(crate) fn is_markdown(&self) -> bool {
        self.path.ends_with(".md")
    }

    /// The last part of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The lines, counted from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// The lines above the unit tests: none, if they have files of their own and this is one.
    pub(crate) fn lines_above_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        // In two pieces: in one it would end this file here.
        const TESTS: &str = concat!("#[cfg(", "test)]");
        let is_tests = self.name() == "tests.rs"
            || self
                .path
                .split_once("/src/")
                .is_some_and(|(_, file)| format!("/{file}").contains("/tests/"));
        let above = move |line: &str| !is_tests && !line.contains(TESTS);
        self.lines().take_while(move |(_, line)| above(line))
    }

    /// A finding, as an editor understands it.
    pub(crate) fn at(&self, line: usize, text: impl Display) -> String {
        format!("{}:{line}: {text}", self.path)
    }
}

/// Makes a rule for one file one for the tree.
pub(crate) fn each(rule: fn(&File) -> Vec<String>) -> impl Fn(&[File]) -> Vec<String> {
    move |tree| tree.iter().flat_map(rule).collect()
}

/// The repository's text files, sorted by path.
pub(crate) fn read() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root");
    let mut files = Vec::new();
    read_into(&mut files, root, "");
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 20, "{} holds next to nothing: {files:?}", root.display());
    files
}

fn read_into(files: &mut Vec<File>, root: &Path, directory: &str) {
    for entry in fs::read_dir(root.join(directory)).expect("a directory of the tree opens") {
        let entry = entry.expect("a directory of the tree reads");
        let name = entry.file_name().into_string().expect("names in the tree are UTF-8");
        let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        let kind = entry.file_type().expect("an entry of the tree has a type");
        if SKIPPED.contains(&path.as_str()) {
            continue;
        } else if kind.is_dir() {
            read_into(files, root, &path);
        } else if kind.is_file() {
            // What is not UTF-8 is no text.
            files.extend(fs::read_to_string(entry.path()).ok().map(|text| File { path, text }));
        }
    }
}
