//! Requests and texts that are none, compared with the answers of QEMU 10.0.2.

use super::*;
use crate::qmp::parse::parse;

/// Returns the text with which a request is refused, and the text of its id.
fn unfit(text: &str, oob_is_on: bool) -> (String, Option<String>) {
    match request(parse(text.as_bytes()).unwrap(), oob_is_on) {
        Ok(request) => panic!("{text} is {request:?}"),
        Err(unfit) => (unfit.refusal.desc, unfit.id.map(|id| serde_json::to_string(&id).unwrap())),
    }
}

#[test]
fn a_request_is_taken_apart() {
    let text = br#"{"id": {"b": 1}, "arguments": {"target": "vm"}, "execute": "query-stats"}"#;
    let got = request(parse(text).unwrap(), false).unwrap();
    assert_eq!((got.command.as_ref(), got.is_oob), ("query-stats", false));
    assert_eq!(got.arguments.get("target"), Some(&Value::String("vm".into())));
    assert_eq!(got.id, Some(parse(br#"{"b": 1}"#).unwrap()));

    let got = request(parse(br#"{"execute": ""}"#).unwrap(), true).unwrap();
    assert_eq!((got.command.as_ref(), got.is_oob, got.arguments.len()), ("", false, 0));
    assert_eq!(got.id, None);

    let got = request(parse(br#"{"exec-oob": "x", "id": null}"#).unwrap(), true).unwrap();
    assert_eq!((got.command.as_ref(), got.is_oob, got.id), ("x", true, Some(Value::Null)));
}

#[test]
fn any_value_is_an_id() {
    for id in ["null", "true", "-1", "18446744073709551615", "0.5", "\"\"", "[1,{}]", "{\"id\":2}"]
    {
        let text = format!("{{\"execute\":\"x\",\"id\":{id}}}");
        let got = request(parse(text.as_bytes()).unwrap(), false).unwrap().id;
        assert_eq!(got, Some(parse(id.as_bytes()).unwrap()));
        let text = format!("{{\"execute\":1,\"id\":{id}}}");
        assert_eq!(unfit(&text, false).1.as_deref(), Some(id));
    }
}

#[test]
fn what_is_no_request_is_refused_in_qemus_words() {
    // QEMU 10.0.2 answered this before `oob` was negotiated.
    let no_object = "QMP input must be a JSON object";
    let lacks = "QMP input lacks member 'execute'";
    let no_string = "QMP input member 'execute' must be a string";
    let no_arguments = "QMP input member 'arguments' must be an object";
    for (text, desc, id) in [
        ("[]", no_object, None),
        ("42", no_object, None),
        ("null", no_object, None),
        ("\"execute\"", no_object, None),
        ("[{\"execute\":\"x\",\"id\":1}]", no_object, None),
        ("{}", lacks, None),
        (r#"{"id":1}"#, lacks, Some("1")),
        (r#"{"arguments":{}}"#, lacks, None),
        (r#"{"execute":1}"#, no_string, None),
        (r#"{"execute":null,"id":[1]}"#, no_string, Some("[1]")),
        (r#"{"execute":"x","arguments":[]}"#, no_arguments, None),
        (r#"{"execute":"x","arguments":"x"}"#, no_arguments, None),
        (r#"{"execute":"x","arguments":null}"#, no_arguments, None),
        (r#"{"execute":"x","foo":1,"id":3}"#, "QMP input member 'foo' is unexpected", Some("3")),
        (r#"{"execute":"x","":1}"#, "QMP input member '' is unexpected", None),
        (r#"{"exec-oob":"x"}"#, "QMP input member 'exec-oob' is unexpected", None),
        (r#"{"exec-oob":1,"execute":"x"}"#, "QMP input member 'exec-oob' is unexpected", None),
    ] {
        assert_eq!(unfit(text, false), (desc.to_owned(), id.map(str::to_owned)), "{text}");
    }
}

#[test]
fn out_of_band_is_known_once_it_is_on() {
    let no_string = "QMP input member 'exec-oob' must be a string";
    let clashes = "QMP input member 'execute' clashes with 'exec-oob'";
    for (text, desc) in [
        (r#"{"exec-oob":1}"#, no_string),
        (r#"{"exec-oob":1,"execute":"x"}"#, no_string),
        (r#"{"execute":"x","exec-oob":1}"#, no_string),
        (r#"{"execute":"x","exec-oob":"x"}"#, clashes),
        (r#"{"exec-oob":"x","execute":"x"}"#, clashes),
        (r#"{"exec-oob":"x","execute":1}"#, "QMP input member 'execute' must be a string"),
    ] {
        assert_eq!(unfit(text, true), (desc.to_owned(), None), "{text}");
    }
}

#[test]
fn of_several_wrong_members_the_first_in_the_text_is_named() {
    for (text, named) in [
        (r#"{"execute":1,"zap":1,"foo":1,"arguments":1}"#, "execute"),
        (r#"{"arguments":1,"foo":1,"execute":1}"#, "arguments"),
        (r#"{"foo":1,"arguments":1,"execute":"x"}"#, "foo"),
        (r#"{"arguments":{},"execute":"x","foo":1}"#, "foo"),
        (r#"{"exec-oob":"x","zap":1}"#, "exec-oob"),
    ] {
        let desc = unfit(text, false).0;
        assert!(desc.starts_with(&format!("QMP input member '{named}' ")), "{text}: {desc}");
    }
}
