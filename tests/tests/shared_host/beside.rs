//! All at the same time: a VM, `vmstrobe demo`, a VMM that embeds the BPF reader, a server, a
//! measurement, and queries that come and go.

use std::time::{Duration, Instant};

use vmstrobe_tests::host::findings::Findings;
use vmstrobe_tests::host::run::{Run, json};
use vmstrobe_tests::host::serve_dir::ServeDir;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::require_lending_qemu;

use crate::{READ_LIMIT, START_LIMIT, lists, vcpu_paths, vmm, with_namespaces};

/// The time over which the server's descriptors must not grow, beside a VMM of ours.
const STEADY: Duration = Duration::from_secs(60);
/// The time over which they must not grow beside a QEMU.
const STEADY_QEMU: Duration = Duration::from_secs(15);
/// The number of counts of which the smallest is taken: a look opens and closes some descriptors.
const COUNTS: usize = 8;
/// The longest time that a server that has settled may take to answer.
const SETTLED_LIMIT: Duration = Duration::from_secs(2);
/// The pause between two counts.
const COUNT_PERIOD: Duration = Duration::from_millis(150);
/// The time in which a look ends.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// The number of queries that come and go meanwhile.
const QUERIES: usize = 20;

/// Counts the server's descriptors some times and returns the smallest count.
fn fewest(serve: &ServeDir) -> Result<usize, String> {
    let mut fewest = usize::MAX;
    for _ in 0..COUNTS {
        fewest = fewest.min(serve.descriptors()?);
        std::thread::sleep(COUNT_PERIOD);
    }
    Ok(fewest)
}

/// Counts the server's descriptors until there are no more than `most`, and returns the smallest
/// count. A look holds some for a while, and on a busy machine for longer.
fn fewest_until(serve: &ServeDir, most: usize) -> Result<usize, String> {
    let (mut fewest, begin) = (fewest(serve)?, Instant::now());
    while fewest > most && begin.elapsed() < LOOK_LIMIT {
        fewest = fewest.min(serve.descriptors()?);
        std::thread::sleep(COUNT_PERIOD);
    }
    Ok(fewest)
}

/// Queries the VM `web` at even intervals over the time, and returns the pids of the queries.
fn query_for(found: &mut Findings, time: Duration, pid: u32) -> Vec<u32> {
    let (pid, want) = (pid.to_string(), vcpu_paths("web", 4));
    let (begin, mut pids) = (Instant::now(), Vec::new());
    for number in 1..=QUERIES {
        let query = Run::start(&["query", "-p", &pid, "--names", "exits", "--json"]);
        pids.push(query.pid());
        if let Some(output) = found.note("query -p", query.output_within(READ_LIMIT)) {
            let right = want.iter().all(|path| output.stdout.contains(path.as_str()))
                && output.stdout.matches("qom-path").count() == want.len();
            found.must(right, || format!("query -p, number {number}: {output:?}"));
        }
        let due = time.mul_f64(number as f64 / QUERIES as f64);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    pids
}

/// Checks that the server's sockets are those of these VMs, by name and number of vCPUs.
fn serves(found: &mut Findings, serve: &ServeDir, want: &[(&str, usize)]) {
    let mut names: Vec<String> = want.iter().map(|(name, _)| format!("{name}.sock")).collect();
    names.sort_unstable();
    let seen = serve.names();
    found.must(seen == names, || format!("serve has {seen:?}, not {names:?}"));
    for (name, vcpus) in want {
        found.note("serve", serve.serves_within(SETTLED_LIMIT, name, *vcpus));
    }
}

/// Checks that the server's log has one line for each VM, and none for any of these processes.
fn says_nothing_of(found: &mut Findings, serve: &ServeDir, vms: usize, others: &[u32]) {
    let said = serve.said();
    let lines = said.matches("vmstrobe: serving ").count();
    found.must(lines == vms, || format!("serve announces {lines} VMs, not {vms}"));
    let of = |pid: &&u32| {
        said.contains(&format!("(pid {pid})")) || said.contains(&format!("(pid {pid},"))
    };
    let told: Vec<&u32> = others.iter().filter(of).collect();
    found.must(told.is_empty(), || format!("serve speaks of the vmstrobes {told:?}"));
}

/// Runs everything beside the VM `web` of this process, which has 4 vCPUs.
fn check(pid: u32, steady: Duration) {
    let mut found = Findings::default();
    let demo = Run::start(&["demo", "-d", "70s", "--json"]);
    let embedded = vmm("embeds", "embedded", 3);
    let serve = ServeDir::all();
    found.note("serve", serve.serves_within(START_LIMIT, "web", 4));
    let stat = Run::start(&["stat", "-p", &pid.to_string(), "-d", "70s"]);
    let demo_name = demo.pid().to_string();
    found.note("serve, demo", serve.serves_within(START_LIMIT, &demo_name, 4));
    let all = [(pid, 4), (embedded.pid(), 3), (demo.pid(), 4)];
    lists(&mut found, "all at once", &all);

    let before = fewest(&serve);
    let mut others = query_for(&mut found, steady, pid);
    let after = before.clone().and_then(|before| fewest_until(&serve, before));
    let steady = matches!((&before, &after), (Ok(before), Ok(after)) if after <= before);
    found.must(steady, || format!("serve has {before:?} descriptors, and later {after:?}"));

    lists(&mut found, "all at once, later", &all);
    let vms = [("web", 4), ("embedded", 3), (&*demo_name, 4)];
    serves(&mut found, &serve, &vms);
    others.extend([serve.pid(), stat.pid()]);
    says_nothing_of(&mut found, &serve, vms.len(), &others);
    let all = json(READ_LIMIT, &["query", "--all", "--names", "exits", "--json"]);
    if let Some(all) = found.note("query --all", all) {
        let objects = all.as_array().map_or(0, Vec::len);
        found.must(objects == 11, || format!("query --all shows {objects} vCPUs, not 11"));
    }
    found.none();
}

#[test]
fn beside_all_others_each_vm_is_counted_once() {
    with_namespaces("shared_host::beside::beside_all_others_each_vm_is_counted_once", || {
        let web = vmm("stats", "web", 4);
        check(web.pid(), STEADY);
    });
}

#[test]
fn beside_all_others_a_qemu_is_counted_once() {
    if !require_lending_qemu() {
        return;
    }
    with_namespaces("shared_host::beside::beside_all_others_a_qemu_is_counted_once", || {
        let qemu = Qemu::start(&Config { name: "web", vcpus: 4, ..Config::default() });
        check(qemu.pid(), STEADY_QEMU);
    });
}
