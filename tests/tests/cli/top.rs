//! `top` on a real terminal: each key of its help does what the help says, and the terminal is as
//! before however it ends.
//!
//! Most tests look at the demo's guest; the spike is in a table, of which the test knows when it
//! was.

use vmstrobe_tests::require::{require_kvm, require_tmux};
use vmstrobe_tests::tmux::Tmux;

use crate::{fine, says, vmstrobe};

mod ended;
mod endings;
mod keep;
mod past;
mod shown;

/// A screen of 80x24 on which the demo is shown, once its first second has passed. It is sampled
/// only every 4 ms, because it is not built for speed, and several tests run at the same time.
fn demo(options: &str) -> Option<Tmux> {
    if !require_kvm() || !require_tmux() {
        return None;
    }
    let tmux = Tmux::open((80, 24), &format!("vmstrobe top --demo -r 250 {options}"));
    tmux.wait("the rates of all vCPUs", |screen| {
        let has = |vcpu: &str| screen.iter().any(|line| row_of(line) == Some(vcpu));
        screen[0].contains("live") && ["demo", "0", "1", "2", "3"].iter().all(|vcpu| has(vcpu))
    });
    Some(tmux)
}

/// Returns the name in a row of the table.
fn row_of(line: &str) -> Option<&str> {
    let name = line.trim_start_matches(['▸', '▾', ' ']);
    let (name, rest) = name.split_once(' ')?;
    rest.trim_start().starts_with(|c: char| c.is_ascii_digit() || c == '–').then_some(name)
}

/// Returns the names of the rows of the table.
fn rows(screen: &[String]) -> Vec<String> {
    let rows = screen.iter().skip(2).take_while(|line| !line.starts_with("──"));
    rows.filter_map(|line| row_of(line).map(str::to_owned)).collect()
}

/// Returns the name of the selected row.
fn selected(screen: &[String]) -> Option<String> {
    let line = screen.iter().skip(2).find(|line| line.starts_with('▸'))?;
    row_of(line).map(str::to_owned)
}

/// Returns the time before the newest sample that is shown, in ms; 0 if it is the newest one.
fn ago_ms(screen: &[String]) -> f64 {
    let first = &screen[0];
    let Some((before, _)) = first.split_once(" ago") else { return 0.0 };
    let mut words = before.split_whitespace().rev();
    let (unit, number) = (words.next().expect("a unit"), words.next().expect("a number"));
    let number: f64 = number.parse().unwrap_or_else(|_| panic!("{first}"));
    match unit {
        "s" => number * 1000.0,
        "ms" => number,
        "µs" => number / 1000.0,
        "ns" => number / 1e6,
        _ => panic!("{first}"),
    }
}

/// Returns the time of day of the moment that is shown, in ms.
fn time_of_day_ms(screen: &[String]) -> f64 {
    let word = screen[0].split_whitespace().find(|word| word.matches(':').count() == 2);
    let word = word.unwrap_or_else(|| panic!("no time of day: {}", screen[0]));
    let seconds = word.split(':').map(|part| part.parse::<f64>().expect("a number"));
    seconds.fold(0.0, |sum, part| sum * 60.0 + part) * 1000.0
}

#[test]
fn every_key_of_the_help_is_tested() {
    let Some(tmux) = demo("") else { return };
    tmux.keys(&["?"]);
    let screen = tmux.wait_for("any key closes this");
    let mut keys = Vec::new();
    for line in screen.iter().filter(|line| line.contains('│')) {
        let chars: Vec<char> = line.chars().collect();
        // Two columns of keys, each with what they do.
        for column in [4, 40] {
            let text: String = chars.iter().skip(column).take(12).collect();
            let is_key = chars.get(column + 12).is_some_and(|c| *c != ' ');
            keys.extend(is_key.then(|| text.trim().to_owned()));
        }
    }
    keys.retain(|key| !key.is_empty());
    let tested = [past::KEYS, keep::KEYS, shown::KEYS, ended::KEYS].concat();
    for key in &tested {
        assert!(keys.iter().any(|one| one == key), "{key} is not in the help: {keys:?}");
    }
    for key in keys.iter().filter(|key| key.chars().count() < 11) {
        let is_text = ["Rates", "Chart:", "their", "docs/"].iter().any(|word| key.contains(word));
        assert!(is_text || tested.contains(&key.as_str()), "{key} is not tested");
    }
    tmux.keys(&["Down"]);
    tmux.wait("the help is closed", |screen| !screen[1].contains("keys"));
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let text = "top needs a terminal: use `vmstrobe stat -i 1s`, or `vmstrobe top -b -n 5`";
    says(&vmstrobe(&["top", "--demo"]), 2, &[text]);
    if require_tmux() {
        let tmux = Tmux::open((80, 24), "TERM=dumb vmstrobe top --demo; echo status $?; read x");
        let screen = tmux.wait_for("status 2");
        assert!(screen[0].contains("vmstrobe: top needs a terminal"), "{screen:?}");
    }
}

#[test]
fn tables_are_printed_as_text() {
    if !require_kvm() {
        return;
    }
    let output = vmstrobe(&["top", "--demo", "-b", "-n", "3", "-i", "300"]);
    fine(&output);
    assert!(!output.stdout.contains('\u{1b}'), "{output:?}");
    let titles = output.stdout.lines().filter(|line| line.contains("vmstrobe top")).count();
    assert_eq!(titles, 3, "{output:?}");
    let lines: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
    let last = lines.rsplit(|line| line.is_empty()).next().expect("there is text");
    let names = rows(last);
    assert_eq!(names[0], "demo", "{output:?}");
    let mut vcpus = names[1..].to_vec();
    vcpus.sort_unstable();
    assert_eq!(vcpus, ["0", "1", "2", "3"], "{output:?}");
    let ascii = vmstrobe(&["top", "--demo", "-b", "-n", "1", "-i", "300", "--ascii"]);
    fine(&ascii);
    assert!(ascii.stdout.is_ascii() && ascii.stdout.contains("vmstrobe top"), "{ascii:?}");
}
