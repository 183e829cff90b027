//! Conversions between bytes, which keys and values are, and text, which is printed.

use serde::{Deserialize, Serialize, Serializer};
use std::time::Duration;

/// Bytes as one line of text for a terminal: backslashes, control characters and bytes that are not UTF-8 are escaped
/// (`\n`, `\x00`), so that no value can move the cursor or look like two values. [`unescaped`] reverses it.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let bytes = match encoded(bytes) {
        // `unescaped` would decode it.
        Some(_) => {
            push_hex(&mut text, b'{');
            &bytes[1..]
        }
        None => bytes,
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\t' | '\n' | '\r' => text.extend(character.escape_default()),
                _ if character.is_control() => {
                    let mut buffer = [0; 4];
                    character.encode_utf8(&mut buffer).bytes().for_each(|byte| push_hex(&mut text, byte));
                }
                _ => text.push(character),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_hex(&mut text, *byte));
    }
    text
}

/// Why a text can't be decoded into bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBytes {
    #[error("\\{0} is not an escape: write \\\\ for a backslash, \\t, \\n, \\r or \\x and two hexadecimal digits")]
    Escape(String),
    #[error("{0:?} is not hexadecimal: give two digits for each byte")]
    Hex(String),
    #[error("{0:?} is not base64 (RFC 4648, with padding)")]
    Base64(String),
}

/// The bytes of a text that [`escaped`] printed, or that `-o json` printed for bytes that are not UTF-8:
/// `{"base64":"/w=="}`.
pub fn unescaped(text: &[u8]) -> Result<Vec<u8>, NotBytes> {
    if let Some(base64) = encoded(text) {
        return from_base64(&base64);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => (b'\\', tail),
            (b'\\', [b't', tail @ ..]) => (b'\t', tail),
            (b'\\', [b'n', tail @ ..]) => (b'\n', tail),
            (b'\\', [b'r', tail @ ..]) => (b'\r', tail),
            (b'\\', [b'x', high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (digit(*high) << 4 | digit(*low), tail)
            }
            (b'\\', _) => {
                let shown = String::from_utf8_lossy(tail).chars().take(3).collect();
                return Err(NotBytes::Escape(shown));
            }
            (byte, tail) => (*byte, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    Ok(bytes)
}

/// Bytes as `-o json` prints them if they are not text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    base64: String,
}

/// The content of `{"base64":"..."}`, if the text is nothing else.
fn encoded(text: &[u8]) -> Option<String> {
    if !text.starts_with(b"{") {
        return None;
    }
    serde_json::from_slice(text).ok().map(|Encoded { base64 }| base64)
}

/// Decodes two hexadecimal digits for each byte.
pub fn from_hex(text: &str) -> Result<Vec<u8>, NotBytes> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(NotBytes::Hex(text.to_owned()));
    }
    Ok(pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect())
}

/// The value of a hexadecimal digit.
fn digit(digit: u8) -> u8 {
    char::from(digit).to_digit(16).unwrap_or_default() as u8
}

fn push_hex(text: &mut String, byte: u8) {
    text.push_str(&format!("\\x{byte:02x}"));
}

/// A duration to the second, or to the minute if it is long.
pub fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}

/// A number of things, in the singular if the number is one.
pub fn counted(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// A size in bytes, with a unit or without: 1073741824, 1GiB, 500MB.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1000),
        ("MB", 1000 * 1000),
        ("GB", 1000 * 1000 * 1000),
        ("TB", 1000 * 1000 * 1000 * 1000),
    ];
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor);
    let bytes = factor.and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor));
    bytes.ok_or_else(|| "give whole bytes or a unit: 1073741824, 1GiB, 500MB".to_owned())
}

/// A key in JSON: a string if the same string on the command line stands for the same key; otherwise `{"base64":
/// "..."}`.
pub struct JsonKey<'a>(pub &'a [u8]);

impl Serialize for JsonKey<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match unescaped(self.0) {
            Ok(read) if read == self.0 => JsonBytes(self.0).serialize(serializer),
            _ => Encoded { base64: base64(self.0) }.serialize(serializer),
        }
    }
}

/// Bytes in JSON: a string if they are UTF-8, otherwise `{"base64": "..."}`.
pub struct JsonBytes<'a>(pub &'a [u8]);

impl Serialize for JsonBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded { base64: base64(self.0) }.serialize(serializer),
        }
    }
}

/// The base64 alphabet.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Decodes base64 (RFC 4648, section 4, with padding). Accepts only what [`base64`] writes, so that no two texts decode
/// to the same bytes.
pub fn from_base64(text: &str) -> Result<Vec<u8>, NotBytes> {
    let invalid = || NotBytes::Base64(text.to_owned());
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.as_bytes().chunks(4) {
        let mut number = 0;
        for digit in group {
            let value = DIGITS.iter().position(|known| known == digit).ok_or_else(invalid)?;
            number = number << 6 | value as u32;
        }
        number <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&number.to_be_bytes()[1..group.len()]);
    }
    if base64(&bytes) == text { Ok(bytes) } else { Err(invalid()) }
}

/// RFC 4648, section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = group.iter().chain([0; 2].iter()).take(3).fold(0, |number, byte| number << 8 | u32::from(*byte));
        for digit in 0..4 {
            let index = (number >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_is_one_unambiguous_line() {
        assert_eq!(escaped("grüße".as_bytes()), "grüße");
        assert_eq!(escaped(b"a\tb\nc\\n"), "a\\tb\\nc\\\\n");
        assert_eq!(escaped(b"\x1b[2J\xff\x00"), "\\x1b[2J\\xff\\x00");
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, bytes) in [("0", 0), ("1073741824", 1 << 30), ("1GiB", 1 << 30), ("2mb", 2_000_000), ("3KiB", 3072)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GiB", "1 GiB", "1.5GiB", "-1", "1G", "99999999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (bytes, text) in vectors {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(base64(b"\xfb\xff\xfe"), "+//+");
        for bad in ["Zg", "Zg=", "Zh==", "Zg==Zg==", "=", "Z", "Zm9v!", "Zm9v "] {
            assert_eq!(from_base64(bad), Err(NotBytes::Base64(bad.to_owned())));
        }
    }

    #[test]
    fn hexadecimal_is_two_digits_a_byte() {
        assert_eq!(from_hex("00fF7a").unwrap(), b"\x00\xff\x7a");
        for bad in ["0", "0g", "0x00", "00 11", "ü"] {
            assert_eq!(from_hex(bad), Err(NotBytes::Hex(bad.to_owned())));
        }
    }

    #[test]
    fn escaped_text_stands_for_the_same_bytes() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in
            [&all[..], b"a\tb\nc\\n", "grüße \u{85}".as_bytes(), b"{\"base64\":1}", b"{\"base64\":\"AA==\"}", b""]
        {
            assert_eq!(unescaped(escaped(bytes).as_bytes()).unwrap(), bytes);
        }
        assert_eq!(unescaped(b"\xff is itself").unwrap(), b"\xff is itself");
        for bad in ["\\", "a\\q", "\\x0", "\\xfg", "\\X00"] {
            assert!(matches!(unescaped(bad.as_bytes()), Err(NotBytes::Escape(_))), "{bad}");
        }
    }

    #[test]
    fn bytes_of_json_are_read_back() {
        let json = serde_json::to_string(&JsonBytes(b"\xff\x80")).unwrap();
        assert_eq!(unescaped(json.as_bytes()).unwrap(), b"\xff\x80");
        assert_eq!(unescaped(b"{\"base64\": \"/w==\"}").unwrap(), b"\xff");
        assert!(unescaped(b"{\"base64\":\"?\"}").is_err());
        for key in ["{\"base64\":1}", "{\"base64\":\"/w==\",\"a\":1}", "{}", "{user}"] {
            assert_eq!(unescaped(key.as_bytes()).unwrap(), key.as_bytes());
        }
    }

    #[test]
    fn json_tells_text_from_bytes() {
        assert_eq!(serde_json::to_string(&JsonBytes(b"a\"b")).unwrap(), r#""a\"b""#);
        assert_eq!(serde_json::to_string(&JsonBytes(b"\xff")).unwrap(), r#"{"base64":"/w=="}"#);
        // A value is only read. A key may also be passed back on the command line, where a backslash begins an escape.
        assert_eq!(serde_json::to_string(&JsonBytes(b"a\\t")).unwrap(), r#""a\\t""#);
        assert_eq!(serde_json::to_string(&JsonKey(b"a\\t")).unwrap(), r#"{"base64":"YVx0"}"#);
        assert_eq!(serde_json::to_string(&JsonKey(b"a\t")).unwrap(), r#""a\t""#);
    }
}
