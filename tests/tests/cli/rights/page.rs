//! The tables of docs/rights.md, and what they say of a thread.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::thread::CapabilitySet;

/// The two tables that name capabilities of threads.
pub(super) struct Page {
    threads: Vec<Row>,
    broker: Vec<Row>,
}

/// Returns the cells of a row.
type Row = Vec<String>;

impl Page {
    pub(super) fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rights.md");
        let text = fs::read_to_string(path).expect("the page is there");
        let threads = table(&text, "| name | of |");
        let broker = table(&text, "| command | capabilities of the broker |");
        Self { threads, broker }
    }

    /// Returns the names of threads and processes that the page has.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.threads.iter().flat_map(|row| quoted(&row[0])).collect()
    }

    /// Returns the capabilities that a thread of this name may have in this command, each of which
    /// is fine; none if the page does not name it.
    pub(super) fn capabilities(&self, line: &[String], name: &str) -> Vec<CapabilitySet> {
        let name = general(name);
        let rows = self.threads.iter();
        let rows = rows.filter(|row| quoted(&row[0]).contains(&name) && is_of(&row[1], line));
        let mut sets: Vec<CapabilitySet> = rows
            .map(|row| match &*row[2] {
                "none" => CapabilitySet::empty(),
                "all" => CapabilitySet::all(),
                "the broker's" => self.of_broker(line),
                names => capabilities(names),
            })
            .collect();
        // The page says that during the proof it has the rights of the proof.
        if name == "kvm-nx-lpage-re" {
            sets.push(self.of_broker(line));
        }
        sets
    }

    fn of_broker(&self, line: &[String]) -> CapabilitySet {
        let demo = line[0] == "demo" || line.iter().any(|word| word == "--demo");
        let off = line.windows(2).any(|words| words == ["--bpf", "off"]);
        let row = |named: &str| {
            let row = self.broker.iter().find(|row| quoted(&row[0]).iter().any(|of| of == named));
            &*row.unwrap_or_else(|| panic!("the page has no row for {named}"))[1]
        };
        let first = match &*line[0] {
            "demo" => "--demo",
            "stat" | "record" | "report" if line.iter().any(|word| word == "--") => "stat -- CMD",
            "report" if line.len() == 2 => "report FILE",
            command => command,
        };
        let usual = capabilities(row("list"));
        let mut set = match row(first).strip_prefix("the same, and ") {
            Some(more) => usual | capabilities(more),
            None if first == "--demo" => usual,
            None => capabilities(row(first)),
        };
        let replay = line.iter().any(|word| word == "--replay");
        let rows = [(demo, row("--demo")), (off, row("--bpf off")), (replay, row("--replay"))];
        for (_, row) in rows.iter().filter(|one| one.0) {
            let less =
                row.strip_prefix("as above, without ").expect("such a row says what is missing");
            set -= capabilities(less);
        }
        set
    }
}

/// Returns the rows of the table that begins with this line.
fn table(text: &str, begin: &str) -> Vec<Row> {
    let lines = text.lines().skip_while(|line| !line.starts_with(begin)).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|'));
    let cells = |line: &str| -> Row {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let rows: Vec<Row> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "the page has no table {begin}");
    rows
}

/// Returns the words between backquotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns true if the row is about that command line: it names the command, or an option of the
/// line.
fn is_of(cell: &str, line: &[String]) -> bool {
    cell == "all"
        || quoted(cell).iter().any(|of| match &**of {
            "stat -- CMD" => line.iter().any(|word| word == "--"),
            option if option.starts_with("--") => {
                let words: Vec<&str> = option.split(' ').collect();
                line.windows(words.len()).any(|window| window == words)
            }
            command => line[0] == command,
        })
}

fn capabilities(names: &str) -> CapabilitySet {
    let of = |name: &str| {
        let name = name.strip_prefix("CAP_").unwrap_or_else(|| panic!("{name} is no capability"));
        CapabilitySet::from_name(name).unwrap_or_else(|| panic!("there is no CAP_{name}"))
    };
    names.replace(" and ", ", ").split(", ").map(of).collect()
}

/// Returns a thread's name as the page has it: with N in the place of a number.
pub(super) fn general(name: &str) -> String {
    let number = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let cpu = name.strip_prefix("CPU ").and_then(|rest| rest.strip_suffix("/KVM"));
    match name.strip_prefix("vmstrobe-") {
        Some(rest) if number(rest) => "vmstrobe-N".to_owned(),
        _ if cpu.is_some_and(number) => "CPU N/KVM".to_owned(),
        _ => name.to_owned(),
    }
}

/// Returns the commands in the text of `vmstrobe --help`.
pub(super) fn commands(help: &str) -> BTreeSet<&str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}
