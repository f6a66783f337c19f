//! Texts and their values, texts that are refused, and the cost of parsing.

use std::thread;

use super::*;
use crate::qmp::framer::lexer::MAX_NESTING;

/// The default stack size of a thread of the standard library, in bytes.
const STACK_BYTES: usize = 2 * 1024 * 1024;

fn echo(text: &str) -> String {
    let value = parse(text.as_bytes()).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"));
    serde_json::to_string(&value).unwrap()
}

fn refusal(text: &[u8]) -> String {
    match parse(text) {
        Err(refusal) => refusal.desc,
        Ok(value) => panic!("{} is {value:?}", text.escape_ascii()),
    }
}

#[test]
fn values_come_back_as_they_were_sent() {
    for text in [
        "null",
        "true",
        "false",
        "\"\"",
        "[]",
        "{}",
        "[1,[2,[]],{}]",
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551615",
        "0.5",
        "\"\\u0000\\u001f\\n\\\"\\\\\u{e9}\u{1f600}\u{7f}\"",
        "{\"\":null}",
    ] {
        assert_eq!(echo(text), text);
    }
    assert_eq!(echo(" {\t\"a\" :\r\n[ 1 , 2 ] } "), "{\"a\":[1,2]}");
    assert_eq!(echo(r#""\/\b\f\u00e9\uD83D\uDE00""#), "\"/\\b\\f\u{e9}\u{1f600}\"");
}

#[test]
fn members_are_written_in_the_order_of_a_qdict() {
    for (text, want) in [
        (r#"{"b":1,"a":[true,null,"q"]}"#, r#"{"a":[true,null,"q"],"b":1}"#),
        (r#"{"minor":2,"micro":1}"#, r#"{"micro":1,"minor":2}"#),
        (r#"{"micro":1,"minor":2}"#, r#"{"minor":2,"micro":1}"#),
        (
            r#"[{"error":{"desc":1,"class":2},"id":3}]"#,
            r#"[{"id":3,"error":{"class":2,"desc":1}}]"#,
        ),
    ] {
        assert_eq!(echo(text), want);
    }
}

#[test]
fn integers_are_signed_then_unsigned_then_double() {
    for (text, want) in [
        ("9223372036854775807", Value::Int(i64::MAX)),
        ("-9223372036854775808", Value::Int(i64::MIN)),
        ("9223372036854775808", Value::Uint(1 << 63)),
        ("18446744073709551615", Value::Uint(u64::MAX)),
        ("18446744073709551616", Value::Double(18_446_744_073_709_551_616.0)),
        ("-9223372036854775809", Value::Double(-9_223_372_036_854_775_808.0)),
        ("1.0", Value::Double(1.0)),
        ("1e5", Value::Double(100_000.0)),
        ("1e-0", Value::Double(1.0)),
        ("0.1", Value::Double(0.1)),
    ] {
        assert_eq!(parse(text.as_bytes()), Ok(want), "{text}");
    }
}

#[test]
fn an_integer_has_no_minus_zero_and_a_double_has() {
    let text = b"[-0, -0.0, -0e1, 0, [-0], \"-0\", 1e-0, -1e-400]";
    let Ok(Value::List(items)) = parse(text) else { panic!("it is a list") };
    for index in [0, 3] {
        assert_eq!(items[index], Value::Int(0), "{index}");
    }
    for index in [1, 2, 7] {
        let Value::Double(double) = items[index] else { panic!("{:?}", items[index]) };
        assert!(double == 0.0 && double.is_sign_negative(), "{index}");
    }
    assert_eq!(items[4], Value::List(vec![Value::Int(0)]));
    assert_eq!(items[5], Value::String("-0".into()));
    assert_eq!(parse(b"-0"), Ok(Value::Int(0)));
}

#[test]
fn quotes_may_be_single() {
    for (text, want) in [
        (r#"'a"b'"#, r#""a\"b""#),
        (r#""a'b""#, r#""a'b""#),
        (r#""a\'b""#, r#""a'b""#),
        (r#"'a\'b'"#, r#""a'b""#),
        (r#"'a\"b\\'"#, r#""a\"b\\""#),
        (r"{'execute':'x','id':'\u0041'}", r#"{"execute":"x","id":"A"}"#),
    ] {
        assert_eq!(echo(text), want, "{text}");
    }
}

#[test]
fn the_dialect_makes_no_json_of_what_is_none() {
    for text in [
        "[1-0]",
        "[1 -0 2]",
        "-00",
        "[--0]",
        "'a\"",
        "\"a'",
        "'",
        "\"\\",
        "'\\",
        "{'a':1'}",
        "'a''b'",
        "\\'",
        "[1,-]",
        "{'a':1,\"a\":2}",
    ] {
        assert!(refusal(text.as_bytes()).starts_with("JSON parse error, "), "{text}");
    }
}

#[test]
fn what_is_no_json_is_a_parse_error() {
    let texts: &[&[u8]] = &[
        b"",
        b" ",
        b"]",
        b"}",
        b":",
        b",",
        b"[}",
        b"{\"a\":[}]",
        b"{\"execute\": }",
        b"[1,]",
        b"[1 2]",
        b"{\"a\":1,}",
        b"{\"a\" 1}",
        b"{\"a\":1 \"b\":2}",
        b"{1:2}",
        b"{execute:\"x\"}",
        b"nul",
        b"nulll",
        b"TRUE",
        b"01",
        b"1.",
        b"-",
        b"+1",
        b".5",
        b"1e",
        b"%s",
        b"/* x */1",
        b"1 2",
        b"{} {}",
        b"\"\\x\"",
        b"\"\\u12g4\"",
        b"\"\\uD800\"",
        b"\"\\uDC00\"",
        b"\"\\uD800\\u0041\"",
        b"\"\xC3(\"",
        b"\"\xFF\"",
        b"\"\xED\xA0\x80\"",
        b"\"\xC0\x80\"",
        b"\"\t\"",
        b"\"\n\"",
        b"\"\0\"",
        b"\xEF\xBB\xBF1",
        b"[",
        b"{",
        b"\"",
        b"1e400",
    ];
    for text in texts {
        let desc = refusal(text);
        assert!(desc.starts_with("JSON parse error, "), "{}: {desc}", text.escape_ascii());
        assert!(!desc.contains("-0"), "{desc}");
    }
}

#[test]
fn a_key_is_had_once_at_every_level() {
    let same = "JSON parse error, duplicate key";
    for text in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"b":2,"\u0061":3}"#,
        r#"[{"x":{"a":1,"a":2}}]"#,
        r#"{"id":{"a":1,"a":2}}"#,
        r#"{"a":1,'a':-0}"#,
    ] {
        assert_eq!(refusal(text.as_bytes()), same, "{text}");
    }
    for count in [2, FEW_MEMBERS, FEW_MEMBERS + 1, 500] {
        let mut members: Vec<_> = (0..count).map(|n| format!("\"{n}\":0")).collect();
        let text = format!("{{{}}}", members.join(","));
        assert!(parse(text.as_bytes()).is_ok());
        members[count / 2] = members[0].clone();
        let text = format!("{{{}}}", members.join(","));
        assert_eq!(refusal(text.as_bytes()), same, "{count}");
    }
}

#[test]
fn many_members_take_no_quadratic_time() {
    // These are as many keys as a text may have. Comparing each with each would take seconds.
    let members: Vec<_> = (1..MAX_VALUES).map(|n| format!("\"{n}\":0")).collect();
    let text = format!("{{{}}}", members.join(","));
    let Ok(Value::Dict(dict)) = parse(text.as_bytes()) else { panic!("it is an object") };
    assert_eq!(dict.len(), MAX_VALUES - 1);
    assert_eq!(serde_json::to_string(&dict).unwrap().len(), text.len());
}

#[test]
fn a_text_has_so_many_values_and_no_more() {
    let list = |count: usize| format!("[{}]", vec!["0"; count].join(","));
    assert!(parse(list(MAX_VALUES - 1).as_bytes()).is_ok());
    let empty = format!("[{}]", vec!["{}"; MAX_VALUES - 1].join(","));
    assert!(parse(empty.as_bytes()).is_ok());
    let too_many = "JSON token count limit exceeded";
    assert_eq!(refusal(list(MAX_VALUES).as_bytes()), too_many);
    // The limit holds also for QEMU's extensions, and whatever error follows.
    let dialect = list(MAX_VALUES).replacen('0', "'0'", 1);
    assert_eq!(refusal(dialect.as_bytes()), too_many);
    assert_eq!(refusal(format!("{}]", list(MAX_VALUES)).as_bytes()), too_many);
}

#[test]
fn strings_are_borrowed_unless_they_have_escapes() {
    let Ok(Value::Dict(dict)) = parse(br#"{"plain":"plain","esc\u0061ped":"\n"}"#) else {
        panic!("it is an object")
    };
    let keys: Vec<_> = dict.iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(keys, ["plain", "escaped"]);
    assert!(matches!(dict.get("plain"), Some(Value::String(Cow::Borrowed("plain")))));
    assert!(matches!(dict.get("escaped"), Some(Value::String(Cow::Owned(_)))));
    assert_eq!(dict.get("other"), None);
    assert_eq!(dict.into_iter().last().unwrap().0, "escaped");
}

#[test]
fn an_owned_value_is_the_same_value() {
    let text = br#"{"a":[1,-1.5,"x",{"b":null}],"c":true,"d":18446744073709551615}"#.to_vec();
    let owned = parse(&text).unwrap().into_owned();
    assert_eq!(owned, parse(&text).unwrap());
    assert_ne!(owned, parse(br#"{"a":[]}"#).unwrap());
    drop(text);
    let Value::Dict(dict) = owned else { panic!("it is an object") };
    assert_eq!(dict.get("c"), Some(&Value::Bool(true)));
}

#[test]
fn the_deepest_text_fits_a_small_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let levels = MAX_NESTING / open.matches(['[', '{']).count();
        let text = format!("{}-0{}", open.repeat(levels), close.repeat(levels));
        let work = move || {
            let value = parse(text.as_bytes()).unwrap();
            let owned = value.clone().into_owned();
            assert_eq!(value, owned);
            assert_eq!(serde_json::to_string(&owned).unwrap(), text.replace("-0", "0"));
        };
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn garbage_is_refused_and_never_a_panic() {
    let parts = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "'",
        "\\",
        "\\'",
        "\\u",
        "D8",
        "-",
        "0",
        "-0",
        "1",
        ".",
        "e",
        "true",
        "null",
        " ",
        "\"a\"",
        "\u{e9}",
        "\0",
        "\u{1f600}",
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let (mut good, mut bad) = (0, 0);
    for _ in 0..50_000 {
        let mut text = String::new();
        for _ in 0..(state >> 60) + 1 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push_str(parts[(state >> 32) as usize % parts.len()]);
        }
        match parse(text.as_bytes()) {
            Ok(value) => {
                let again = serde_json::to_string(&value).unwrap();
                // The value itself may differ, because an integral double is written as an integer.
                assert_eq!(echo(&again), again, "{text}");
                good += 1;
            }
            Err(refusal) => {
                assert!(refusal.desc.starts_with("JSON parse error, "), "{text}");
                bad += 1;
            }
        }
    }
    assert!(good > 500 && bad > 5000, "{good} {bad}");
}
