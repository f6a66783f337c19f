//! The plotting client of the examples, as a user runs it: samples of a running guest at 1 kHz
//! become a picture.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use vmstrobe_tests::command::run_within;
use vmstrobe_tests::require::{require, require_kvm};
use vmstrobe_tests::serve::Serve;

const LIMIT: Duration = Duration::from_secs(60);
/// The number of vCPUs of the demo.
const VCPUS: usize = 4;
/// The width of the picture, in its own units.
const WIDTH: f64 = 1000.0;
/// The height of the picture.
const HEIGHT: f64 = 400.0;

#[test]
fn the_plotting_client_draws_every_vcpu() {
    let python = Command::new("python3").arg("--version").output();
    let python = python.map(drop).map_err(|error| format!("python3: {error}"));
    if !require_kvm() || !require("python3", python) {
        return;
    }
    let serve = Serve::start(&["--demo"]);
    let directory = TempDir::new().expect("a temporary directory can be made");
    let picture = directory.path().join("exits.svg");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/plot.py");
    let [script, socket, file] =
        [&*script, serve.socket(), &*picture].map(|path| path.to_str().expect("the path is text"));
    let output = run_within(LIMIT, "python3", &[script, socket, file, "2"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let svg = fs::read_to_string(&picture).expect("the program wrote a picture");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert!(svg.contains(" exits per second</text>"), "{svg}");
    let lines: Vec<Vec<(f64, f64)>> =
        svg.split("<polyline points=\"").skip(1).map(points).collect();
    assert_eq!(lines.len(), VCPUS, "{svg}");
    for (at, line) in lines.iter().enumerate() {
        assert!(svg.contains(&format!(">vcpu[{at}]</text>")), "{svg}");
        // There are 2 s in steps of 20 ms, but for those that a busy machine has missed.
        assert!(line.len() > 50, "{} points", line.len());
        assert!(line.is_sorted_by(|a, b| a.0 < b.0), "{line:?}");
        let fits = |&(x, y): &(f64, f64)| (0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y);
        assert!(line.iter().all(fits), "{line:?}");
    }
    // The vCPU with the steady load exits all the time; the largest value touches the top.
    assert!(lines[0].iter().any(|point| point.1 < HEIGHT), "{:?}", lines[0]);
    assert!(lines.iter().flatten().any(|point| point.1 == 0.0), "{svg}");
}

/// Returns the points of a polyline, up to the closing quote.
fn points(text: &str) -> Vec<(f64, f64)> {
    let text = text.split('"').next().unwrap_or_default();
    let number = |text: &str| text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    let point = |point: &str| point.split_once(',').map(|(x, y)| (number(x), number(y)));
    text.split(' ').map(|text| point(text).expect("two numbers")).collect()
}
