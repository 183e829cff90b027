//! Keys and values are bytes; what is printed is text.

use serde::{Serialize, Serializer};
use std::time::Duration;

/// Bytes on one line of a terminal: backslashes, control characters and what is not UTF-8 are escaped (`\n`, `\x00`), so
/// that no value can move the cursor or be taken for two.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
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

fn push_hex(text: &mut String, byte: u8) {
    text.push_str(&format!("\\x{byte:02x}"));
}

/// A length of time to the second, or to the minute where it is long.
pub fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}

/// Bytes in JSON: a string where they are UTF-8, otherwise `{"base64": "..."}`.
pub struct JsonBytes<'a>(pub &'a [u8]);

impl Serialize for JsonBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Encoded {
            base64: String,
        }
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded { base64: base64(self.0) }.serialize(serializer),
        }
    }
}

/// RFC 4648, section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
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
    fn base64_is_that_of_rfc_4648() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (bytes, text) in vectors {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(b"\xfb\xff\xfe"), "+//+");
    }

    #[test]
    fn json_tells_text_from_bytes() {
        assert_eq!(serde_json::to_string(&JsonBytes(b"a\"b")).unwrap(), r#""a\"b""#);
        assert_eq!(serde_json::to_string(&JsonBytes(b"\xff")).unwrap(), r#"{"base64":"/w=="}"#);
    }
}
