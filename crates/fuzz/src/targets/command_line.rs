//! The command line ([`ringfort_cli::args`]) and the printed form of keys and values ([`ringfort_cli::text`]).
//!
//! Keys are arbitrary bytes; printed, they are text on one line, from which the bytes can be decoded.

use crate::allocation::{Bound, SMALL_THINGS, within};
use crate::source::Source;
use bytes::Bytes;
use clap::{Command, CommandFactory};
use ringfort_cli::args::{Cli, normalized};
use ringfort_cli::text::{self, JsonBytes, escaped};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::LazyLock;

/// A byte takes at most four characters, in a text that doubles as it grows.
const TEXT_BOUND: Bound = Bound { fixed: SMALL_THINGS, per_byte: 12 };

static COMMAND: LazyLock<Command> = LazyLock::new(Cli::command);

/// The bytes that an escaped text stands for.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&kind, after) = rest.split_first().expect("something is escaped");
        rest = after;
        bytes.push(match kind {
            b'\\' => b'\\',
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'x' => {
                let (digits, after) = rest.split_at(2);
                rest = after;
                let digits = str::from_utf8(digits).expect("digits are ASCII");
                u8::from_str_radix(digits, 16).expect("two hexadecimal digits")
            }
            other => panic!("nothing is escaped as \\{}", char::from(other)),
        });
    }
    bytes
}

/// The bytes that this text encodes according to RFC 4648.
fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut number, mut bytes) = (0, 0usize, Vec::new());
    for digit in text.trim_end_matches('=').chars() {
        number = (number << 6 | DIGITS.find(digit).expect("a digit of base64")) & 0xfff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((number >> bits) as u8);
        }
    }
    assert_eq!((text.len() % 4, bytes.len().div_ceil(3)), (0, text.len() / 4), "base64 comes in fours");
    bytes
}

fn check_printed(data: &[u8]) {
    let printed = within(TEXT_BOUND, data.len(), || escaped(data));
    assert!(!printed.contains(char::is_control), "{printed:?} can't move the cursor");
    assert_eq!(unescaped(&printed), data, "what is printed stands for one value");
    assert_eq!(text::unescaped(printed.as_bytes()).as_deref(), Ok(data), "and is read as that");
    let json = within(TEXT_BOUND, data.len(), || serde_json::to_string(&JsonBytes(data)).expect("bytes have a JSON"));
    match serde_json::from_str(&json).expect("it is JSON") {
        serde_json::Value::String(text) => assert_eq!(text.as_bytes(), data),
        other => {
            assert!(str::from_utf8(data).is_err(), "text is shown as text");
            assert_eq!(from_base64(other["base64"].as_str().expect("bytes are base64")), data);
            assert_eq!(text::unescaped(json.as_bytes()).as_deref(), Ok(data), "JSON is read as what it stands for");
        }
    }
    // Any text is decoded or refused.
    drop(text::unescaped(data));
}

/// Arguments are accepted or refused, and a key is parsed as it was given.
fn check_arguments(data: &[u8]) {
    let args: Vec<OsString> = data.split(|byte| *byte == 0).map(|arg| OsString::from_vec(arg.to_vec())).collect();
    let normal = normalized(args.clone());
    assert_eq!(normalized(normal.clone()), normal, "what is normal stays so");
    let command_line = [OsString::from("ringfort")].into_iter().chain(normal);
    drop(COMMAND.clone().try_get_matches_from(command_line));
    let key = &args[0];
    let command_line = normalized(["ringfort", "get", "--"].map(OsString::from).into_iter().chain([key.clone()]));
    let matches = COMMAND.clone().try_get_matches_from(command_line).expect("any bytes are a key");
    let get = matches.subcommand_matches("get").expect("the command is get");
    assert_eq!(get.get_one::<OsString>("key").map(|key| key.as_bytes()), Some(key.as_bytes()));
}

pub fn body(data: &[u8]) {
    check_printed(data);
    check_arguments(data);
}

/// Arguments with a zero byte between them.
pub fn seed(data: &[u8]) -> Bytes {
    const WORDS: [&str; 12] = [
        "serve",
        "get",
        "put",
        "scan",
        "--port=1",
        "--raft_dir",
        "--bootstrap=true",
        "--prefix",
        "--",
        "-o",
        "json",
        "-h",
    ];
    let mut source = Source::new(data);
    let words = source.list(|source| match source.below(WORDS.len() + 1) {
        0 => source.bytes(),
        word => WORDS[word - 1].into(),
    });
    words.join(&0).into()
}
