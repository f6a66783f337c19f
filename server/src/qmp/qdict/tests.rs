//! Every expectation here was seen in replies of QEMU 10.0.2.

use super::*;

#[test]
fn members_stand_in_the_order_of_qemus_replies() {
    let table: &[&[&str]] = &[
        &["return", "id"],
        &["id", "error"],
        &["class", "desc"],
        &["provider", "stats", "qom-path"],
        &["name", "unit", "base", "bucket-size", "exponent", "type"],
        &["version", "capabilities"],
        &["timestamp", "event", "data"],
        &["seconds", "microseconds"],
        &["exec-oob", "execute", "arguments", "id"],
        &["m0", "timestamp", "m3", "", "m6", "m2", "class", "minor", "a", "m5", "b", "event"],
        &["m1", "desc", "return", "m4", "m7", "major", "id", "error", "data"],
        &["\u{e9}", "\u{65e5}\u{672c}", "z", "q"],
        &["\0a", "a", "b"],
    ];
    for want in table {
        let mut sent = want.to_vec();
        for _ in 0..sent.len() {
            sent.rotate_left(1);
            let got: Vec<_> = order(sent.iter().copied()).into_iter().map(|i| sent[i]).collect();
            assert_eq!(got, *want, "sent as {sent:?}");
        }
    }
}

#[test]
fn within_a_bucket_the_later_member_is_first() {
    assert_eq!(bucket("micro"), bucket("minor"));
    assert_eq!(order(["micro", "minor"].into_iter()), [1, 0]);
    assert_eq!(order(["minor", "micro"].into_iter()), [1, 0]);
}

#[test]
fn the_first_left_is_the_one_that_qemu_names() {
    // The arguments `target`, which is taken, and `m<n>`, by the first n, the step, and how many.
    let table = [
        (0, 1, 2, "m0"),
        (0, 1, 5, "m3"),
        (3, 7, 6, "m3"),
        (0, 1, 7, "m5"),
        (0, 1, 8, "m5"),
        (5, 3, 12, "m5"),
        (0, 1, 14, "m5"),
        (0, 1, 15, "m3"),
        (0, 1, 16, "m3"),
        (2, 9, 20, "m92"),
        (0, 1, 29, "m3"),
        (0, 1, 30, "m15"),
        (0, 1, 31, "m30"),
        (100, 37, 36, "m766"),
        (0, 1, 40, "m30"),
        (7, 11, 60, "m304"),
        (0, 1, 61, "m32"),
        (1, 13, 117, "m1171"),
        (0, 1, 118, "m111"),
        (0, 1, 200, "m30"),
        (0, 1, 480, "m15"),
        (0, 1, 1000, "m527"),
        (0, 1, 1023, "m527"),
    ];
    for (first, step, count, want) in table {
        let mut keys = vec!["target".to_owned()];
        keys.extend((0..count).map(|n| format!("m{}", first + n * step)));
        let left = first_left(keys.iter().map(String::as_str), &[0]).unwrap();
        assert_eq!(keys[left], want, "{first} {step} {count}");
    }
}

#[test]
fn a_table_that_shrinks_gives_another_order() {
    // Arguments of `dump-guest-memory`, which takes six.
    let takes = ["paging", "protocol", "detach", "begin", "length", "format"];
    let table = [
        ("detach begin protocol m442 format paging length m647 m822", "m442"),
        ("m83 paging length protocol m211 format m326 detach begin", "m83"),
        ("protocol m338 paging detach m321 length format begin", "m338"),
        ("format m745 protocol paging length detach begin m205", "m205"),
        ("paging m816 detach format begin m773 length protocol", "m816"),
        ("m659 length begin detach m364 m425 m405 paging protocol format", "m425"),
        ("m532 format paging m563 length m14 protocol begin detach m306", "m306"),
        ("m186 paging m801 m426 detach protocol m939 begin length m206 format", "m801"),
        ("paging m913 detach m520 m665 protocol format m511 length m117 begin", "m665"),
    ];
    for (sent, want) in table {
        let keys: Vec<_> = sent.split(' ').collect();
        let taken = takes.map(|name| keys.iter().position(|key| *key == name).unwrap());
        assert_eq!(keys[first_left(keys.iter().copied(), &taken).unwrap()], want, "{sent}");
    }
}

#[test]
fn bytes_are_hashed_as_c_has_them() {
    for (keys, want) in [
        (&["\0a", "b", "a"][..], "b"),
        (&["\u{e9}", "z", "\u{65e5}\u{672c}", "q"], "z"),
        (&["Ez", "FY", "EzEz", "FYFY", "EzFY"], "EzEz"), // all of one length have one hash
    ] {
        assert_eq!(keys[first_left(keys.iter().copied(), &[]).unwrap()], want);
    }
}

#[test]
fn nothing_is_left_if_all_were_taken() {
    assert_eq!(first_left([].into_iter(), &[]), None);
    assert_eq!(first_left(["a", "b"].into_iter(), &[1, 0]), None);
    assert_eq!(first_left(["a", "b", "c"].into_iter(), &[2, 0]), Some(1));
}

/// `count` keys that GLib's hash cannot tell apart.
fn colliding(count: usize) -> Vec<String> {
    let key = |n: usize| (0..18).map(|bit| if n >> bit & 1 == 0 { "Ez" } else { "FY" }).collect();
    (0..count).map(key).collect()
}

#[test]
fn keys_made_to_collide_are_bounded_in_cost() {
    let few = colliding(MAX_TABLED_MEMBERS);
    assert!(few.iter().all(|key| string_hash(key) == string_hash(&few[0])));
    // All probe from one slot, and neither of the two that were taken is named.
    assert!(first_left(few.iter().map(String::as_str), &[0, 1]).is_some_and(|left| left > 1));
    // One more, and it is the first of the QDict's order; 20000 would otherwise take a minute.
    for count in [MAX_TABLED_MEMBERS + 1, 20_000] {
        let many = colliding(count);
        let order = order(many.iter().map(String::as_str));
        assert_eq!(first_left(many.iter().map(String::as_str), &[]), Some(order[0]));
        assert_eq!(first_left(many.iter().map(String::as_str), &order[..2]), Some(order[2]));
    }
}
