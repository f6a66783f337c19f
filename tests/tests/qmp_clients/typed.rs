//! Rust's `qapi`: commands and replies are types that were generated from QEMU's own schema.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use qapi::qmp::{
    StatsFilter, StatsProvider, StatsRequest, StatsTarget, StatsType, StatsUnit, StatsVCPUFilter,
    StatsValue, query_stats, query_stats_schemas,
};
use qapi::{ErrorClass, ExecuteError, Qmp, Stream};
use std::io::BufReader;

use crate::both;

const LIMIT: Duration = Duration::from_secs(20);

type Client = Qmp<Stream<BufReader<UnixStream>, UnixStream>>;

fn connect(socket: &Path) -> Client {
    let stream = UnixStream::connect(socket).expect("somebody listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a socket has time limits");
    let reader = BufReader::new(stream.try_clone().expect("there is a free descriptor"));
    let mut client = Qmp::new(Stream::new(reader, stream));
    client.handshake().expect("the greeting is one, and negotiation works");
    client
}

fn vcpus(vcpus: Option<Vec<String>>, names: &[&str]) -> query_stats {
    let names = Some(names.iter().map(|name| (*name).to_owned()).collect());
    let providers = Some(vec![StatsRequest { names, provider: StatsProvider::kvm }]);
    query_stats(StatsFilter::vcpu { providers, vcpu: StatsVCPUFilter { vcpus } })
}

#[test]
fn typed_replies_are_those_of_qemu() {
    let Some((observed, serve)) = both("typed") else { return };
    let (mut theirs, mut ours) = (connect(observed.socket(0)), connect(serve.socket()));
    let filter = vcpus(None, &["exits", "guest_mode", "halt_wait_hist"]);
    let got = ours.execute(&filter).expect("QEMU answers the command");
    let want = theirs.execute(&filter).expect("QEMU answers the command");
    assert_eq!(format!("{got:?}"), format!("{want:?}"));
    assert_eq!(got.len(), 2);
    let value = |i: usize, name: &str| {
        let stat = got[i].stats.iter().find(|stat| stat.name == name);
        stat.unwrap_or_else(|| panic!("{name}: {got:?}")).value.clone()
    };
    for (i, vcpu) in got.iter().enumerate() {
        assert_eq!(vcpu.provider, StatsProvider::kvm);
        assert!(matches!(value(i, "guest_mode"), StatsValue::boolean(false)));
        let buckets = value(i, "halt_wait_hist");
        assert!(matches!(buckets, StatsValue::list(buckets) if buckets.len() == 32));
    }
    let exits = [0, 1].map(|i| value(i, "exits"));
    assert!(exits.iter().any(|exits| matches!(exits, StatsValue::scalar(1..))), "{exits:?}");

    let path = got[1].qom_path.clone().expect("a vCPU has a path");
    let one = ours
        .execute(&vcpus(Some(vec![path.clone()]), &["exits"]))
        .expect("QEMU answers the command");
    assert!(one.len() == 1 && one[0].qom_path == Some(path), "{one:?}");
    let none =
        ours.execute(&vcpus(Some(Vec::new()), &["exits"])).expect("QEMU answers the command");
    assert!(none.is_empty(), "{none:?}");
}

#[test]
fn typed_schemas_are_those_of_qemu() {
    let Some((observed, serve)) = both("typed2") else { return };
    let (mut theirs, mut ours) = (connect(observed.socket(0)), connect(serve.socket()));
    for provider in [None, Some(StatsProvider::kvm), Some(StatsProvider::cryptodev)] {
        let command = query_stats_schemas { provider };
        let got = ours.execute(&command).expect("QEMU answers the command");
        let want = theirs.execute(&command).expect("QEMU answers the command");
        assert_eq!(format!("{got:?}"), format!("{want:?}"));
    }
    let schemas =
        ours.execute(&query_stats_schemas { provider: None }).expect("QEMU answers the command");
    let vcpu = schemas.iter().find(|schema| schema.target == StatsTarget::vcpu).unwrap();
    let wait = vcpu.stats.iter().find(|stat| stat.name == "halt_wait_ns").unwrap();
    assert_eq!((wait.type_, wait.unit), (StatsType::cumulative, Some(StatsUnit::seconds)));
    assert_eq!((wait.base, wait.exponent), (Some(10), -9));
}

#[test]
fn an_unknown_command_is_an_error_with_its_class() {
    let Some((_observed, serve)) = both("typed3") else { return };
    let mut ours = connect(serve.socket());
    let refused = ours.execute(&qapi::qmp::query_block {}).expect_err("we have no such command");
    let ExecuteError::Qapi(error) = refused else { panic!("{refused:?}") };
    assert_eq!(error.class, ErrorClass::CommandNotFound);
    assert_eq!(error.desc, "The command query-block has not been found");
    // The client asks for the version to see whether events have come.
    ours.nop().expect("the server answers");
    assert_eq!(ours.events().len(), 0);
}
