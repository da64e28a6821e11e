//! Pickles as CPython 3.11 writes them, and bytes that no Python wrote.

use super::*;

/// `pickle.dumps(record, protocol)` of a dictionary with a member of an enum and an inner payload.
const RECORD_3: &str = "80037d71002858060000006a6f625f6964710158020000006a31710258170000007363686564756c65645f74696d657374616d705f75746371034741da485cf0100000580a00000071756575655f6e616d65710458040000006d61696c7105580400000063726f6e71064e5810000000696e74657276616c5f7365636f6e6473710747404e000000000000580600000072657065617471084b0358110000005f6f7269675f6a6f625f7061796c6f6164710943027b7d710a580b0000005f73657269616c697a6572710b58040000006a736f6e710c5806000000737461747573710d636e61712e6d6f64656c732e656e756d730a5343484544554c45445f4a4f425f5354415455530a710e5806000000706175736564710f85711052711158160000007363686564756c655f6661696c7572655f636f756e7471124b0058110000006c6173745f656e7175657565645f75746371134e580c0000006e6578745f72756e5f75746371144741da485cf0100000752e";
const RECORD_5: &str = "80059531010000000000007d94288c066a6f625f6964948c026a31948c177363686564756c65645f74696d657374616d705f757463944741da485cf01000008c0a71756575655f6e616d65948c046d61696c948c0463726f6e944e8c10696e74657276616c5f7365636f6e64739447404e0000000000008c06726570656174944b038c115f6f7269675f6a6f625f7061796c6f61649443027b7d948c0b5f73657269616c697a6572948c046a736f6e948c06737461747573948c106e61712e6d6f64656c732e656e756d73948c145343484544554c45445f4a4f425f5354415455539493948c0670617573656494859452948c167363686564756c655f6661696c7572655f636f756e74944b008c116c6173745f656e7175657565645f757463944e8c0c6e6578745f72756e5f757463944741da485cf0100000752e";
/// `[1, -1, 300, 70000, 2**40, -2**40, 2**70, True, "ü", (1, 2), (1, 2, 3, 4), {"a": {"b": []}}]`
const MIXED: &str = "80059556000000000000005d94284b014affffffff4d2c014a701101008a060000000000018a060000000000ff8a09000000000000000040888c02c3bc944b014b028694284b014b024b034b0474947d948c0161947d948c0162945d947373652e";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[test]
fn records_of_every_protocol() {
    for hex in [RECORD_3, RECORD_5] {
        let Value::Dict(record) = read(&bytes(hex)).unwrap() else { panic!("a dictionary") };
        let expected = [
            ("job_id", text("j1")),
            ("scheduled_timestamp_utc", Value::Float(1_763_800_000.25)),
            ("cron", Value::None),
            ("interval_seconds", Value::Float(60.0)),
            ("repeat", Value::Int(3)),
            ("_orig_job_payload", Value::Bytes(Bytes::from_static(b"{}"))),
            ("status", text("paused")),
        ];
        for (key, value) in expected {
            assert_eq!(record.get(key), Some(&value), "{key}");
        }
    }
}

#[test]
fn every_kind_of_plain_data_and_nothing_inside_of_another() {
    let int = |number| Value::Int(number);
    let expected = vec![
        int(1),
        int(-1),
        int(300),
        int(70_000),
        int(1 << 40),
        int(-(1 << 40)),
        Value::Opaque,
        Value::Bool(true),
        text("ü"),
        Value::Opaque,
        Value::Opaque,
        Value::Opaque,
    ];
    assert_eq!(read(&bytes(MIXED)), Ok(Value::List(expected)));
}

#[test]
fn a_call_is_never_made() {
    // pickle.dumps of an object whose __reduce__ is (os.system, ("echo",)), protocol 0 style in the middle: `cos\nsystem\n`.
    let call = b"\x80\x03cposix\nsystem\nX\x04\x00\x00\x00echo\x85R.";
    assert_eq!(read(call), Ok(text("echo")), "the argument, and nothing was run");
    let two = b"\x80\x03cposix\nsystem\nX\x01\x00\x00\x00aX\x01\x00\x00\x00b\x86R.";
    assert_eq!(read(two), Ok(Value::Opaque));
    assert_eq!(read(b"\x80\x03}b."), Err(PickleError::Unknown(b'b')));
}

#[test]
fn damaged_bytes_are_an_error_and_never_a_panic() {
    let whole = bytes(RECORD_5);
    for end in 0..whole.len() {
        assert_eq!(read(&whole[..end]), Err(Damaged), "{end}");
    }
    for at in 0..whole.len() {
        for put in [0x00, 0x28, 0x52, 0x75, 0x8e, 0x94, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = put;
            // Whatever it says, it ends; half of these are still pickles.
            drop(read(&bytes));
        }
    }
    for bytes in [&b""[..], b".", b"\x80\x04t.", b"(0.", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff."] {
        assert_eq!(read(bytes), Err(Damaged), "{bytes:?}");
    }
}

#[test]
fn nothing_is_deep_and_nothing_can_be_doubled() {
    // A tuple in a tuple in a tuple: what is deep overflows the stack of who drops it.
    let deep = [b"\x80\x04K\x01".to_vec(), vec![0x85; 100_000], b".".to_vec()].concat();
    assert_eq!(read(&deep), Ok(Value::Tuple(vec![Value::Opaque])));
    // A tuple, remembered, and twice in another, sixty times: what is shared would be copied 2^60 times.
    let mut doubled = b"\x80\x04K\x01\x85\x94".to_vec();
    for place in 0..60u8 {
        doubled.extend([b'h', place, b'h', place, 0x86, 0x94]);
    }
    doubled.push(b'.');
    assert_eq!(read(&doubled), Ok(Value::Tuple(vec![Value::Opaque, Value::Opaque])));
}
