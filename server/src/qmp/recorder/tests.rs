//! Conversations with a server whose program records: arguments, replies, and what a client that
//! waits does to others.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use vmstrobe_core::{Error, ErrorKind, Registry};

use super::*;
use crate::qmp::session::Session;
use crate::qmp::shared::Shared;
use crate::qmp::{Config, Server};

/// The arguments that the functions were called with.
#[derive(Debug, Default)]
struct Calls {
    dumps: Mutex<Vec<DumpArguments>>,
    marks: Mutex<Vec<String>>,
}

/// Makes functions that note their calls. A dump named `/full` fails.
fn recorder() -> (Recorder, Arc<Calls>) {
    let calls = Arc::<Calls>::default();
    let (of_dump, of_mark) = (Arc::clone(&calls), Arc::clone(&calls));
    let dump = move |arguments: DumpArguments| {
        let path = arguments.path.clone().unwrap_or_else(|| "/d/\u{e9}\n.arrows".into());
        of_dump.dumps.lock().unwrap().push(arguments);
        if path == Path::new("/full") {
            return Err(Error::new(ErrorKind::Io, "/full: no space is left"));
        }
        let (begin_wall_ns, end_wall_ns) = (1_796_135_018_123_456_789, u64::MAX);
        Ok(vec![DumpedFile { path, bytes: 5, samples: 3, begin_wall_ns, end_wall_ns }])
    };
    let mark = move |text: &str| {
        of_mark.marks.lock().unwrap().push(text.to_owned());
        Ok(7)
    };
    (Recorder { dump: Arc::new(dump), mark: Arc::new(mark) }, calls)
}

fn session(recorder: Option<Recorder>) -> Session {
    let config = Config { recorder, ..Config::default() };
    let shared = Shared::new(&Registry::default(), config).unwrap();
    let mut session = Session::new(Arc::new(shared));
    assert_eq!(ask(&mut session, r#"{"execute": "qmp_capabilities"}"#), r#"{"return": {}}"#);
    session
}

/// Returns the reply to a request.
fn ask(session: &mut Session, text: &str) -> String {
    let mut out = Vec::new();
    session.push(text.as_bytes());
    assert!(session.answer_next(&mut out), "{text}");
    String::from_utf8(out).unwrap().trim_end().to_owned()
}

fn dump(session: &mut Session, arguments: &str) -> String {
    ask(session, &format!(r#"{{"execute": "stats-dump", "arguments": {arguments}}}"#))
}

fn mark(session: &mut Session, arguments: &str) -> String {
    ask(session, &format!(r#"{{"execute": "stats-mark", "arguments": {arguments}}}"#))
}

#[test]
fn a_dump_has_its_arguments_and_says_what_it_wrote() {
    let (recorder, calls) = recorder();
    let mut session = session(Some(recorder));
    let want = concat!(
        r#"{"return": {"files": [{"bytes": 5, "begin-wall-ns": 1796135018123456789, "filename": "#,
        r#""/d/\u00E9\n.arrows", "samples": 3, "end-wall-ns": 18446744073709551615}]}, "id": 9}"#,
    );
    assert_eq!(ask(&mut session, r#"{"execute": "stats-dump", "id": 9}"#), want);
    dump(&mut session, r#"{"filename": "/d/x", "last-ns": 10000000000}"#);
    let (last, path) = (Some(Duration::from_secs(10)), Some("/d/x".into()));
    let all = [DumpArguments::default(), DumpArguments { last, path }];
    assert_eq!(*calls.dumps.lock().unwrap(), all);
}

#[test]
fn a_mark_has_its_text_as_it_was_sent() {
    let (recorder, calls) = recorder();
    let mut session = session(Some(recorder));
    let reply = mark(&mut session, r#"{"text": "a\n\u001b[2J\u202e\"b"}"#);
    assert_eq!(reply, r#"{"return": {"wall-ns": 7}}"#);
    // Longer than a request that is answered beside others.
    let long = "x".repeat(100_000);
    mark(&mut session, &format!(r#"{{"text": "{long}"}}"#));
    assert_eq!(*calls.marks.lock().unwrap(), ["a\n\u{1b}[2J\u{202e}\"b", &long]);
}

#[test]
fn wrong_arguments_are_refused_before_anything_is_done() {
    let (recorder, calls) = recorder();
    let mut session = session(Some(recorder));
    for (arguments, want) in [
        (r#"{"filename": "x.arrows"}"#, "Parameter 'filename' expects an absolute path"),
        (r#"{"filename": ""}"#, "Parameter 'filename' expects an absolute path"),
        (r#"{"filename": 1}"#, "Invalid parameter type for 'filename', expected: string"),
        (r#"{"last-ns": 0}"#, "Parameter 'last-ns' expects a time in ns"),
        (r#"{"last-ns": -5}"#, "Parameter 'last-ns' expects a time in ns"),
        (r#"{"last-ns": 1.5}"#, "Invalid parameter type for 'last-ns', expected: integer"),
        (r#"{"last": 5}"#, "Parameter 'last' is unexpected"),
    ] {
        let reply = dump(&mut session, arguments);
        assert!(reply.contains("GenericError") && reply.contains(want), "{arguments}: {reply}");
    }
    for (arguments, want) in [
        ("{}", "Parameter 'text' is missing"),
        (r#"{"text": "a", "b": 1}"#, "Parameter 'b' is unexpected"),
    ] {
        let reply = mark(&mut session, arguments);
        assert!(reply.contains(want), "{arguments}: {reply}");
    }
    let long = format!(r#"{{"filename": "/{}"}}"#, "x".repeat(LARGE_TEXT_BYTES));
    assert!(dump(&mut session, &long).contains("the request has more than 16384 bytes"));
    assert!(calls.dumps.lock().unwrap().is_empty() && calls.marks.lock().unwrap().is_empty());
    let want = r#"{"error": {"class": "GenericError", "desc": "/full: no space is left"}}"#;
    assert_eq!(dump(&mut session, r#"{"filename": "/full"}"#), want);
}

#[test]
fn the_commands_exist_only_where_the_program_records() {
    let (mut without, mut with) = (session(None), session(Some(recorder().0)));
    for command in COMMANDS {
        let request = format!(r#"{{"execute": "{command}"}}"#);
        let want = format!("The command {command} has not been found");
        assert!(ask(&mut without, &request).contains(&want));
        assert!(!ask(&mut with, &request).contains(&want));
        for list in ["query-commands", "query-qmp-schema"] {
            let list = format!(r#"{{"execute": "{list}"}}"#);
            let name = format!(r#"{{"name": "{command}""#);
            assert!(!ask(&mut without, &list).contains(&name));
            assert!(ask(&mut with, &list).contains(&name));
        }
    }
}

/// Connects to a server, and negotiates.
fn client(path: &Path) -> BufReader<UnixStream> {
    let socket = UnixStream::connect(path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut client = BufReader::new(socket);
    client.read_line(&mut String::new()).unwrap();
    assert_eq!(round(&mut client, r#"{"execute": "qmp_capabilities"}"#), "{\"return\": {}}\r\n");
    client
}

fn round(client: &mut BufReader<UnixStream>, request: &str) -> String {
    client.get_mut().write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    client.read_line(&mut reply).unwrap();
    reply
}

#[test]
fn a_client_that_waits_for_a_dump_keeps_no_other_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("qmp");
    let (go, gone) = channel::<()>();
    let (begin, begun) = channel::<()>();
    let (gone, begin) = (Mutex::new(gone), Mutex::new(begin));
    let dump = move |_| {
        begin.lock().unwrap().send(()).unwrap();
        gone.lock().unwrap().recv().unwrap();
        Ok(Vec::new())
    };
    let recorder = Recorder { dump: Arc::new(dump), ..recorder().0 };
    let config = Config { recorder: Some(recorder), ..Config::default() };
    let _server = Server::listen(&path, Registry::default(), config).unwrap();
    let mut waits = client(&path);
    // With white space, so that it is nearly as long as a request for a dump may be.
    let request = format!(r#"{{"execute": "stats-dump"{}}}"#, " ".repeat(16_000));
    waits.get_mut().write_all(request.as_bytes()).unwrap();
    begun.recv_timeout(Duration::from_secs(10)).unwrap();
    let mut other = client(&path);
    let text = "x".repeat(500_000);
    let mark = format!(r#"{{"execute": "stats-mark", "arguments": {{"text": "{text}"}}}}"#);
    assert_eq!(round(&mut other, &mark), "{\"return\": {\"wall-ns\": 7}}\r\n");
    go.send(()).unwrap();
    let mut reply = String::new();
    waits.read_line(&mut reply).unwrap();
    assert_eq!(reply, "{\"return\": {\"files\": []}}\r\n");
}
