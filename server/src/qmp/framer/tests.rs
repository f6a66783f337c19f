//! Streams and their pieces, compared with those of QEMU 10.0.2, and the limits.

use super::lexer::MAX_NESTING;
use super::*;

const PROBE: &str = r#"{"execute":"query-stats","arguments":{"target":"vcpu"},"id":"probe"}"#;
const SIZE: Said = Err("JSON token size limit exceeded");
const NESTING: Said = Err("JSON nesting depth limit exceeded");

/// A text, or the error of a refused one.
type Said = Result<&'static str, &'static str>;
type Pieces = Vec<Result<Vec<u8>, String>>;

fn drain(framer: &mut Framer, pieces: &mut Pieces) {
    while let Some(piece) = framer.next_piece() {
        pieces.push(match piece {
            Piece::Text(text) => Ok(text.to_vec()),
            Piece::Refused(refusal) => Err(refusal.desc),
        });
    }
}

/// Returns the pieces of a stream that is pushed in chunks.
fn pieces<'s>(chunks: impl IntoIterator<Item = &'s [u8]>) -> Pieces {
    let (mut framer, mut pieces) = (Framer::default(), Vec::new());
    for chunk in chunks {
        framer.push(chunk);
        drain(&mut framer, &mut pieces);
    }
    pieces
}

fn said(pieces: &[Said]) -> Pieces {
    pieces.iter().map(|said| said.map(|text| text.into()).map_err(str::to_owned)).collect()
}

/// Streams and their pieces, which QEMU 10.0.2 cuts in the same way.
const STREAMS: &[(&[u8], &[Said])] = &[
    (b"", &[]),
    (b" \t\r\n", &[]),
    (b"{}", &[Ok("{}")]),
    (b"{}{}[]\n{\"a\":[1,{}]}", &[Ok("{}"), Ok("{}"), Ok("[]"), Ok("{\"a\":[1,{}]}")]),
    (b"\r\n{\n\"a\":\r\n1\t}\r\n", &[Ok("{\n\"a\":\r\n1\t}")]),
    (b"{\"a\":1", &[]),
    // Brackets, quotes and backslashes in strings.
    (br#"{"]}":"\"}\\"}{"#, &[Ok(r#"{"]}":"\"}\\"}"#)]),
    (br#"["'",'"','\'']{}"#, &[Ok(r#"["'",'"','\'']"#), Ok("{}")]),
    (b"[\"\x7f\xc3\xa9\"]", &[Ok("[\"\x7f\u{e9}\"]")]),
    // A string ends with its quote, another scalar with the byte behind it.
    (b"\"a\"'b'\"c", &[Ok("\"a\""), Ok("'b'")]),
    (b"42", &[]),
    (b"42 true\nnull,x", &[Ok("42"), Ok("true"), Ok("null"), Ok(",")]),
    (b"1-2 -0.5e+7[]", &[Ok("1"), Ok("-2"), Ok("-0.5e+7"), Ok("[]")]),
    (b"0e1 1true2 ", &[Ok("0"), Ok("e"), Ok("1"), Ok("1"), Ok("true"), Ok("2")]),
    // A token that is no value is a text of its own.
    (b"]:,}", &[Ok("]"), Ok(":"), Ok(","), Ok("}")]),
    (b"{}garbage {}", &[Ok("{}"), Ok("garbage"), Ok("{}")]),
    // Each kind of bracket is counted separately.
    (b"[}]{]}", &[Ok("[}"), Ok("]"), Ok("{]"), Ok("}")]),
    (b"{\"a\":[}]{}", &[Ok("{\"a\":[}]"), Ok("{}")]),
    // A stray byte ends what was open; reading goes on at a bracket, a colon, a comma, a control.
    (b"{\"id\":TRUE}{}", &[Err("JSON parse error, stray byte 0x54"), Ok("}"), Ok("{}")]),
    (b"{\"id\":%s,1 ", &[Err("JSON parse error, stray byte 0x25"), Ok(","), Ok("1")]),
    (b"{\"id\":1.}{}", &[Err("JSON parse error, stray byte 0x7D"), Ok("{}")]),
    (b"{\"id\":-}{}", &[Err("JSON parse error, stray byte 0x7D"), Ok("{}")]),
    (b"{\"id\":01}{}", &[Err("JSON parse error, stray byte 0x31"), Ok("}"), Ok("{}")]),
    (b"1e} 1e+} 1.5 ", &[Err("JSON parse error, stray byte 0x7D"), Ok("}"), Ok("1.5")]),
    (b"+1\n{}", &[Err("JSON parse error, stray byte 0x2B"), Ok("{}")]),
    (b"/* x */{}", &[Err("JSON parse error, stray byte 0x2F"), Ok("{}")]),
    (b"\xEF\xBB\xBF{}", &[Err("JSON parse error, stray byte 0xEF"), Ok("{}")]),
    (b"A\tB C\n{}", &[Err("JSON parse error, stray byte 0x41"), Ok("{}")]),
    // Control bytes, also within strings and behind a backslash.
    (b"\xff\n{}", &[Err("JSON parse error, stray byte 0xFF"), Ok("{}")]),
    (b"\x01{}", &[Err("JSON parse error, stray byte 0x01"), Ok("{}")]),
    (
        b"\x00\xfe",
        &[Err("JSON parse error, stray byte 0x00"), Err("JSON parse error, stray byte 0xFE")],
    ),
    (b"[[{\"a\x01{}", &[Err("JSON parse error, stray byte 0x01"), Ok("{}")]),
    (b"{\"a\":\"\t\"}{}", &[Err("JSON parse error, stray byte 0x09"), Ok("}"), Ok("{}")]),
    (b"{\"a\":\"x\ny\"}{}", &[Err("JSON parse error, stray byte 0x0A"), Ok("}"), Ok("{}")]),
    (b"\"\\\x1f{}", &[Err("JSON parse error, stray byte 0x1F"), Ok("{}")]),
];

#[test]
fn streams_are_cut_as_qemu_does() {
    for (stream, want) in STREAMS {
        assert_eq!(pieces([*stream]), said(want), "{}", stream.escape_ascii());
    }
}

#[test]
fn pieces_do_not_depend_on_the_cuts() {
    for (stream, want) in STREAMS {
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(pieces([head, tail]), said(want), "{} at {cut}", stream.escape_ascii());
        }
        assert_eq!(pieces(stream.chunks(1)), said(want), "{}", stream.escape_ascii());
    }
}

#[test]
fn a_good_request_is_answered_after_any_bad_one() {
    // A newline and a good request follow each; QEMU 10.0.2 answered it, and an error before.
    let bad: &[&[u8]] = &[
        b"{\"execute\": }",
        b"{\"execute\":}",
        b"{\"id\":[1,]}",
        b"{\"execute\" \"x\"}",
        b"{1:2}",
        b"{\"execute\":\"x\" \"id\":1}",
        b"{execute:\"x\"}",
        b"]",
        b":",
        b",",
        b"[}",
        b"{\"a\":[}]",
        b"{\"id\":nul}",
        b"{\"id\":01}",
        b"{\"id\":1.}",
        b"{\"id\":-}",
        b"{\"id\":+1}",
        b"{\"id\":0e1}",
        b"{\"id\":%s}",
        b"/* x */{\"execute\":\"x\"}",
        b"{\"id\":\"\\x\"}",
        b"{\"id\":\"\\u12g4\"}",
        b"{\"id\":\"\\uD800\"}",
        b"{\"id\":\"\xC3(\"}",
        b"{\"id\":\"\xFF\"}",
        b"{\"id\":\"\xFE\"}",
        b"\xFF",
        b"{\"id\":\"\t\"}",
        b"{\"id\":\"a\nb\"}",
        b"\x01",
        b"\xEF\xBB\xBF{\"execute\":\"x\"}",
        b"{\"execute\":\"x\x01{\"execute\":\"x\"}",
        b"}{\"execute\":\"x\"}",
        b"{\"execute\":\"x\"} garbage",
        b"{\"id\":1},{\"id\":2}",
        b"{'execute':'x'}",
        b"{\"id\":TRUE",
        b"{\"id\":\"a\n",
    ];
    for stream in bad {
        let all = [stream, b"\n".as_slice(), PROBE.as_bytes(), b"\n"].concat();
        let pieces = pieces([all.as_slice()]);
        let (last, before) = pieces.split_last().unwrap();
        assert_eq!(last.as_deref(), Ok(PROBE.as_bytes()), "{}", stream.escape_ascii());
        assert!(!before.is_empty(), "{}", stream.escape_ascii());
    }
}

#[test]
fn sixteen_requests_in_one_push_are_sixteen_texts() {
    let all = format!("{PROBE}\r\n").repeat(16);
    assert_eq!(pieces([all.as_bytes()]), vec![Ok(PROBE.as_bytes().to_vec()); 16]);
    // Bytes are pushed before the last text was taken. No text is lost or repeated.
    let (mut framer, mut got) = (Framer::default(), Vec::new());
    for chunk in all.as_bytes().chunks(100) {
        framer.push(chunk);
        if let Some(Piece::Text(text)) = framer.next_piece() {
            got.push(Ok(text.to_vec()));
        }
    }
    drain(&mut framer, &mut got);
    assert_eq!(got, vec![Ok(PROBE.as_bytes().to_vec()); 16]);
}

/// Returns a string of so many bytes, including the quotes.
fn string(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

#[test]
fn a_text_may_be_as_long_as_the_limit_and_no_longer() {
    let longest = string(MAX_REQUEST_BYTES);
    let probe = Ok(PROBE.as_bytes().to_vec());
    let stream = format!(" {longest}{PROBE}");
    assert_eq!(pieces([stream.as_bytes()]), [Ok(longest.clone().into_bytes()), probe.clone()]);

    let too_long = [
        string(MAX_REQUEST_BYTES + 1),
        format!("[{longest}]"),
        format!("{{{longest}:{longest},\"a\":{PROBE}}}"),
        format!("[{}]", " ".repeat(MAX_REQUEST_BYTES)),
        format!("{},", "1".repeat(MAX_REQUEST_BYTES + 1)),
        format!("[{PROBE}{}]", format!(",{PROBE}").repeat(MAX_REQUEST_BYTES / PROBE.len())),
    ];
    for (index, text) in too_long.iter().enumerate() {
        let stream = format!("{text}\n{PROBE}");
        // The comma that ends the number is no part of it.
        let comma = (index == 4).then_some(Ok(",".into()));
        let want: Pieces = said(&[SIZE]).into_iter().chain(comma).chain([probe.clone()]).collect();
        assert_eq!(pieces([stream.as_bytes()]), want, "{index}");
        assert_eq!(pieces(stream.as_bytes().chunks(4000)), want, "{index}");
    }
}

#[test]
fn what_is_refused_for_its_size_is_not_kept() {
    let (mut framer, mut got) = (Framer::default(), Vec::new());
    framer.push(b"[\"");
    for _ in 0..64 * MAX_REQUEST_BYTES / 65536 {
        framer.push(&[b'x'; 65536]);
        drain(&mut framer, &mut got);
        assert!(framer.buffer.capacity() <= 2 * (MAX_REQUEST_BYTES + 65536));
    }
    assert_eq!(got, said(&[SIZE]));
    assert!(framer.buffer.capacity() <= MAX_IDLE_BYTES, "{}", framer.buffer.capacity());
    framer.push(format!("\",{PROBE}]{PROBE}").as_bytes());
    drain(&mut framer, &mut got);
    assert_eq!(got[1..], [Ok(PROBE.as_bytes().to_vec())]);
}

#[test]
fn a_control_byte_ends_what_is_being_skipped() {
    for long in [string(2 * MAX_REQUEST_BYTES), "[".repeat(2 * MAX_NESTING)] {
        let stream = format!("[{}\x01\n{PROBE}", long.trim_end_matches('"'));
        let pieces = pieces([stream.as_bytes()]);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1], Err("JSON parse error, stray byte 0x01".to_owned()));
        assert_eq!(pieces[2].as_deref(), Ok(PROBE.as_bytes()));
    }
}

#[test]
fn a_text_may_nest_as_deep_as_the_limit_and_no_deeper() {
    let nested = |open: &str, close: &str, levels| open.repeat(levels) + &close.repeat(levels);
    for (open, close, brackets) in [("[", "]", 1), ("{\"a\":", "}", 1), ("[{\"]\":", "}]", 2)] {
        let deepest = nested(open, close, MAX_NESTING / brackets);
        assert_eq!(pieces([deepest.as_bytes()]), [Ok(deepest.into_bytes())]);
        // There is one error, not one for each bracket, and the next text is read again.
        for levels in [MAX_NESTING / brackets + 1, 3 * MAX_NESTING] {
            let stream = nested(open, close, levels) + PROBE;
            let want = [said(&[NESTING]), vec![Ok(PROBE.as_bytes().to_vec())]].concat();
            assert_eq!(pieces([stream.as_bytes()]), want);
            assert_eq!(pieces(stream.as_bytes().chunks(1)), want);
        }
    }
    // Nesting that reaches the limit several times is still one text.
    let stream = format!("{}{}{}", "[".repeat(1024), "[],".repeat(9), "]".repeat(1024));
    assert_eq!(pieces([stream.as_bytes()]), said(&[NESTING]));
}

#[test]
fn a_long_text_may_come_byte_by_byte() {
    // Examining the text from its begin at each byte would take hours.
    let text = format!("[{}]", string(MAX_REQUEST_BYTES - 2));
    assert_eq!(pieces(text.as_bytes().chunks(1)), [Ok(text.into_bytes())]);
}

#[test]
fn memory_is_given_back_after_a_long_text() {
    let mut framer = Framer::default();
    framer.push(string(MAX_REQUEST_BYTES).as_bytes());
    framer.push(b"{\"execute\":");
    let mut got = Vec::new();
    drain(&mut framer, &mut got);
    assert_eq!(got.len(), 1);
    assert!(framer.buffer.capacity() <= MAX_IDLE_BYTES, "{}", framer.buffer.capacity());
    framer.push(b"1}");
    assert_eq!(framer.next_piece(), Some(Piece::Text(b"{\"execute\":1}")));
    assert_eq!(framer.next_piece(), None);
    // A short text keeps the buffer for the next one.
    let capacity = framer.buffer.capacity();
    framer.push(PROBE.as_bytes());
    assert!(matches!(framer.next_piece(), Some(Piece::Text(_))));
    assert_eq!(framer.next_piece(), None);
    assert_eq!(framer.buffer.capacity(), capacity);
}

#[test]
fn garbage_gives_the_same_pieces_however_it_is_cut() {
    let parts: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b"\"",
        b"'",
        b"\\",
        b"\"a\"",
        b"1",
        b"0",
        b"-",
        b".",
        b"e",
        b"+",
        b"true",
        b"T",
        b"%",
        b" ",
        b"\t",
        b"\n",
        b"\x01",
        b"\x00",
        b"\xff",
        b"\xc3",
        b"\\u0041",
        b"{\"id\":",
        b"[1,2]",
        b"-0.5e1",
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as usize % below
    };
    for _ in 0..5000 {
        let mut stream = Vec::new();
        for _ in 0..=random(20) {
            stream.extend_from_slice(parts[random(parts.len())]);
        }
        stream.extend_from_slice(b"\x01\n{}");
        let whole = pieces([stream.as_slice()]);
        assert_eq!(whole.last(), Some(&Ok(b"{}".to_vec())), "{}", stream.escape_ascii());
        let (head, tail) = stream.split_at(random(stream.len()));
        assert_eq!(pieces([head, tail]), whole, "{}", stream.escape_ascii());
        assert_eq!(pieces(stream.chunks(1 + random(3))), whole, "{}", stream.escape_ascii());
        // No byte is in two texts.
        let texts: usize = whole.iter().flatten().map(Vec::len).sum();
        assert!(texts <= stream.len());
    }
}
