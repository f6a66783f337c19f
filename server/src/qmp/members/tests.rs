//! Arguments and their refusals, compared with the answers of QEMU 10.0.2.

use super::*;
use crate::qmp::parse::parse;

/// Takes arguments as `query-stats` does.
fn query_stats(arguments: &Dict<'_>) -> Result<(), Refusal> {
    let mut members = Members::of_arguments(arguments);
    let target = members.string("target")?;
    if !["vm", "vcpu", "cryptodev"].contains(&target) {
        return Err(bad_enum(Some("target"), target));
    }
    let path = members.path("providers");
    for (index, item) in members.optional_list("providers")?.unwrap_or(&[]).iter().enumerate() {
        let mut request = Members::of(item, format!("{path}[{index}]"))?;
        let provider = request.string("provider")?;
        if !["kvm", "cryptodev"].contains(&provider) {
            return Err(bad_enum(Some("provider"), provider));
        }
        request.optional_strings("names")?;
        request.finish()?;
    }
    if target == "vcpu" {
        members.optional_strings("vcpus")?;
    }
    members.finish()
}

/// Returns the text with which `take` refuses an object; empty if it does not.
fn said(arguments: &str, take: impl Fn(&Dict<'_>) -> Result<(), Refusal>) -> String {
    let Ok(Value::Dict(dict)) = parse(arguments.as_bytes()) else { panic!("{arguments}") };
    take(&dict).err().map(|refusal| refusal.desc).unwrap_or_default()
}

/// Arguments of `query-stats`, and the answers of QEMU 10.0.2.
const ARGUMENTS: &[(&str, &str)] = &[
    (r#"{"target":"vm"}"#, ""),
    (r#"{"target":"vcpu","vcpus":[],"providers":[{"provider":"kvm","names":["a"]}]}"#, ""),
    (r#"{}"#, "Parameter 'target' is missing"),
    (r#"{"providers":[{"provider":"kvm"}]}"#, "Parameter 'target' is missing"),
    (r#"{"target":"bad"}"#, "Parameter 'target' does not accept value 'bad'"),
    (r#"{"target":"VM","foo":1}"#, "Parameter 'target' does not accept value 'VM'"),
    (r#"{"target":1}"#, "Invalid parameter type for 'target', expected: string"),
    (r#"{"target":null}"#, "Invalid parameter type for 'target', expected: string"),
    (
        r#"{"target":"vm","foo":1,"providers":1}"#,
        "Invalid parameter type for 'providers', expected: array",
    ),
    (
        r#"{"target":"vm","providers":null}"#,
        "Invalid parameter type for 'providers', expected: array",
    ),
    (
        r#"{"target":"vm","providers":["kvm"]}"#,
        "Invalid parameter type for 'providers[0]', expected: object",
    ),
    (
        r#"{"target":"vm","providers":[{"provider":"kvm"},null]}"#,
        "Invalid parameter type for 'providers[1]', expected: object",
    ),
    (
        r#"{"target":"vm","providers":[{"names":["a"]}]}"#,
        "Parameter 'providers[0].provider' is missing",
    ),
    (
        r#"{"target":"vm","providers":[{"provider":null}]}"#,
        "Invalid parameter type for 'providers[0].provider', expected: string",
    ),
    (
        r#"{"target":"vm","providers":[{"provider":"KVM"}]}"#,
        "Parameter 'provider' does not accept value 'KVM'",
    ),
    (
        r#"{"target":"vm","providers":[{"provider":"kvm","names":"a"}]}"#,
        "Invalid parameter type for 'providers[0].names', expected: array",
    ),
    (
        r#"{"target":"vm","providers":[{"provider":"kvm"},{"provider":"kvm","names":["",0]}]}"#,
        "Invalid parameter type for 'providers[1].names[1]', expected: string",
    ),
    (
        r#"{"target":"vm","providers":[{"provider":"kvm","foo":1},{}],"foo":1}"#,
        "Parameter 'providers[0].foo' is unexpected",
    ),
    (r#"{"target":"vm","vcpus":[]}"#, "Parameter 'vcpus' is unexpected"),
    (r#"{"target":"vcpu","vcpus":[0]}"#, "Invalid parameter type for 'vcpus[0]', expected: string"),
    (
        r#"{"target":"vcpu","vcpus":"a","foo":1}"#,
        "Invalid parameter type for 'vcpus', expected: array",
    ),
];

#[test]
fn arguments_are_refused_in_qemus_words() {
    for (arguments, want) in ARGUMENTS {
        assert_eq!(said(arguments, query_stats), *want, "{arguments}");
    }
}

#[test]
fn of_several_unexpected_members_the_first_in_the_text_is_named() {
    let of_foo = "Parameter 'foo' is unexpected";
    assert_eq!(said(r#"{"target":"vm","foo":1,"bar":2}"#, query_stats), of_foo);
    assert_eq!(said(r#"{"foo":1,"bar":2,"target":"vm"}"#, query_stats), of_foo);
    assert_eq!(said(r#"{"bar":1,"target":"vm"}"#, query_stats), "Parameter 'bar' is unexpected");
}

#[test]
fn an_integer_is_an_i64() {
    let take = |dict: &Dict<'_>| {
        let mut members = Members::of_arguments(dict);
        members.optional_int("cpu-index").map(|_| ())
    };
    for good in ["0", "-0", "-1", "9223372036854775807", "-9223372036854775808"] {
        assert_eq!(said(&format!("{{\"cpu-index\":{good}}}"), take), "", "{good}");
    }
    for bad in ["1.0", "1e3", "9223372036854775808", "\"1\"", "null", "true", "[1]"] {
        let want = "Invalid parameter type for 'cpu-index', expected: integer";
        assert_eq!(said(&format!("{{\"cpu-index\":{bad}}}"), take), want, "{bad}");
    }
}

#[test]
fn what_is_taken_is_what_was_sent() {
    let text = r#"{"s":"x","i":-3,"l":[1],"n":["a","b"],"e":[]}"#;
    let Ok(Value::Dict(dict)) = parse(text.as_bytes()) else { panic!("it is an object") };
    let mut members = Members::of_arguments(&dict);
    assert_eq!(members.string("s"), Ok("x"));
    assert_eq!(members.optional_string("s"), Ok(Some("x"))); // twice is as good as once
    assert_eq!(members.optional_string("t"), Ok(None));
    assert_eq!(members.optional_int("i"), Ok(Some(-3)));
    assert_eq!(members.optional_int("j"), Ok(None));
    assert_eq!(members.optional_list("l"), Ok(Some(&[Value::Int(1)][..])));
    assert_eq!(members.optional_strings("n"), Ok(Some(vec!["a", "b"])));
    assert_eq!(members.optional_strings("e"), Ok(Some(vec![])));
    assert_eq!(members.optional_strings("f"), Ok(None));
    assert_eq!(members.finish(), Ok(()));
}

#[test]
fn paths_go_as_deep_as_the_members() {
    let value = parse(br#"{"a":1}"#).unwrap();
    let members = Members::of(&value, "x[3].y".to_owned()).unwrap();
    assert_eq!(members.path("z"), "x[3].y.z");
    assert_eq!(members.finish(), Err(Refusal::generic("Parameter 'x[3].y.a' is unexpected")));
    let refusal = bad_enum(None, "foo");
    assert_eq!(refusal.desc, "Parameter 'null' does not accept value 'foo'");
}
