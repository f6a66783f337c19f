//! Processes at the other end that are no recorders, or hostile.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::Error;

/// A socket that answers the first client with these texts: at once, then one for each request.
fn answering(texts: Vec<Vec<u8>>) -> (TempDir, RunningRecorder) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("the path is free");
    thread::spawn(move || {
        let (socket, _) = listener.accept().expect("somebody connects");
        let mut requests = BufReader::new(&socket).lines();
        for text in texts {
            // The client may have left.
            let _ = (&socket).write_all(&text);
            let _ = requests.next();
        }
    });
    (directory, RunningRecorder::at(path))
}

const GREETING: &[u8] = b"{\"QMP\": {}}\r\n";
const EMPTY: &[u8] = b"{\"return\": {}}\r\n";

fn mark_of(texts: &[&[u8]]) -> Result<u64> {
    let (_directory, recorder) = answering(texts.iter().map(|text| text.to_vec()).collect());
    recorder.mark("x", &Broker::default())
}

#[test]
fn an_answer_is_found_among_events() {
    let answer = b"{\"event\": \"X\", \"data\": {}}\n{\"return\": {\"wall-ns\": 7}}\n";
    assert_eq!(mark_of(&[GREETING, EMPTY, answer]).expect("it answers"), 7);
}

#[test]
fn the_reason_of_a_refusal_is_printable() {
    let refusal = b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\n\\u001b[2J\"}}\n";
    for texts in [&[&refusal[..]][..], &[GREETING, refusal], &[GREETING, EMPTY, refusal]] {
        let error = mark_of(texts).expect_err("it refuses");
        assert!(matches!(error, Error::Control(ControlError::Refused { .. })), "{error:?}");
        assert_eq!(error.to_string(), "no\u{fffd}\u{fffd}[2J");
    }
}

#[test]
fn a_process_that_is_no_recorder_is_told_from_one() {
    let mut events = b"{\"event\": \"X\"}\n".repeat(MAX_EVENTS);
    events.extend_from_slice(b"{\"return\": {\"wall-ns\": 7}}\n");
    let long = vec![b'{'; MAX_REPLY_BYTES + (1 << 16)];
    let deep = [&b"[".repeat(100_000)[..], b"\n"].concat();
    for texts in [
        &[&b"SSH-2.0\r\n"[..]][..],
        &[b"{}\n"],
        &[b"{\"QMP\": 1}\n"],
        &[b"[1]\n"],
        &[b"\xff\xfe\n"],
        &[&long],
        &[&deep],
        &[GREETING, EMPTY, b"{\"return\": {\"wall-ns\": -1}}\n"],
        &[GREETING, EMPTY, b"{\"return\": 5}\n"],
        &[GREETING, EMPTY, &events],
    ] {
        let error = mark_of(texts).expect_err("it is no recorder");
        assert!(matches!(error, Error::Control(ControlError::NotARecorder { .. })), "{error:?}");
    }
}

#[test]
fn an_answer_about_a_dump_is_whole_or_none() {
    let answer = |files: &str| {
        let reply = format!("{{\"return\": {{\"files\": {files}}}}}\n").into_bytes();
        let texts = vec![GREETING.to_vec(), EMPTY.to_vec(), reply];
        let (_directory, recorder) = answering(texts);
        recorder.dump(&DumpArguments::default(), &Broker::default())
    };
    let file = "{\"filename\": \"/a\", \"bytes\": 1, \"samples\": 2, \"begin-wall-ns\": 3, \
                \"end-wall-ns\": 18446744073709551615}";
    let want = DumpedFile {
        path: "/a".into(),
        bytes: 1,
        samples: 2,
        begin_wall_ns: 3,
        end_wall_ns: u64::MAX,
    };
    assert_eq!(answer(&format!("[{file}]")).expect("it is whole"), [want]);
    for files in ["{}", "[{}]", &format!("[{file}, 1]"), "[{\"filename\": 5}]"] {
        let error = answer(files).expect_err("it is not whole");
        assert!(matches!(error, Error::Control(ControlError::NotARecorder { .. })), "{error:?}");
    }
}

#[test]
fn a_socket_that_nobody_serves_is_unreachable() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("socket");
    let unreachable = |path: &Path| {
        let error = RunningRecorder::at(path.to_owned()).mark("x", &Broker::default());
        let error = error.expect_err("nobody is there");
        assert!(matches!(error, Error::Control(ControlError::Unreachable { .. })), "{error:?}");
        error.to_string()
    };
    assert!(unreachable(&path).contains("No such file"));
    drop(UnixListener::bind(&path).expect("the path is free"));
    assert!(unreachable(&path).contains("refused"));
    unreachable(Path::new(&"x".repeat(200)));
    let error = mark_of(&[GREETING, EMPTY]).expect_err("it leaves");
    assert!(matches!(error, Error::Control(ControlError::Unreachable { .. })), "{error:?}");
}

#[test]
fn a_silent_process_is_given_up() {
    let (ours, _theirs) = UnixStream::pair().expect("there are descriptors");
    let mut client = Client { path: Path::new("/x"), socket: ours, received: Vec::new() };
    let error = client.execute("stats-mark", json!({}), Duration::from_millis(20));
    assert!(matches!(error, Err(ControlError::Silent { .. })), "{error:?}");
    // Nobody reads what is sent.
    client.socket.set_nonblocking(true).expect("it is a socket");
    while client.socket.write(&[b' '; 4096]).is_ok() {}
    let error = client.execute("stats-mark", json!({}), Duration::from_millis(20));
    assert!(matches!(error, Err(ControlError::Silent { .. })), "{error:?}");
}
