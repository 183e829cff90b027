//! Keys on the command line: written as `scan` prints them, or in hexadecimal or base64.

use crate::text::{NotBytes, from_base64, from_hex, unescaped};
use bytes::Bytes;
use clap::Args;
use std::ffi::{OsStr, OsString};

/// A key, as an argument or by an option for bytes that are hard to type.
#[derive(Args, Clone, Debug)]
pub struct KeyArgument {
    /// The key, with escapes as `scan` prints them: \\ for a backslash, \t, \n, \r, \x00.
    /// Write `--` before a key that begins with a dash.
    #[arg(verbatim_doc_comment)]
    key: Option<OsString>,

    /// The key in hexadecimal, such as 00ff.
    #[arg(long, value_name = "HEX", conflicts_with = "key_base64")]
    key_hex: Option<String>,

    /// The key in base64, such as AP8=.
    #[arg(long, value_name = "BASE64")]
    key_base64: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("no key is given: give KEY, --key-hex or --key-base64")]
    None,
    #[error("the key is given twice: give only one of KEY, --key-hex and --key-base64")]
    Two,
    #[error("{what} is invalid: {source}")]
    Unreadable { what: &'static str, source: NotBytes },
}

impl KeyArgument {
    pub fn key(&self) -> Result<Bytes, KeyError> {
        let unreadable = |source| KeyError::Unreadable { what: "the key", source };
        match (&self.key, &self.key_hex, &self.key_base64) {
            (Some(text), None, None) => unescape("the key", text),
            (None, Some(hex), _) => from_hex(hex).map(Bytes::from).map_err(unreadable),
            (None, None, Some(base64)) => from_base64(base64).map(Bytes::from).map_err(unreadable),
            (None, None, None) => Err(KeyError::None),
            (Some(_), ..) => Err(KeyError::Two),
        }
    }

    /// The key, and the value that follows it. If an option gives the key, the first argument is the value.
    pub fn key_and_value(mut self, value: Option<OsString>) -> Result<(Bytes, Option<OsString>), KeyError> {
        let has_option = self.key_hex.is_some() || self.key_base64.is_some();
        let value = if has_option && value.is_none() { self.key.take() } else { value };
        Ok((self.key()?, value))
    }
}

/// The bytes of a key, or of a part of a key, written as `scan` prints it. `what` names it in errors.
pub fn unescape(what: &'static str, text: &OsStr) -> Result<Bytes, KeyError> {
    match unescaped(text.as_encoded_bytes()) {
        Ok(bytes) => Ok(bytes.into()),
        Err(source) => Err(KeyError::Unreadable { what, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(key: Option<&str>, hex: Option<&str>, base64: Option<&str>) -> KeyArgument {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        KeyArgument { key: key.map(OsString::from), key_hex: owned(hex), key_base64: owned(base64) }
    }

    #[test]
    fn a_key_is_named_once() {
        assert_eq!(argument(Some("a\\x00b"), None, None).key().unwrap(), &b"a\0b"[..]);
        assert_eq!(argument(None, Some("6100"), None).key().unwrap(), &b"a\0"[..]);
        assert_eq!(argument(None, None, Some("AP8=")).key().unwrap(), &b"\x00\xff"[..]);
        assert!(matches!(argument(None, None, None).key(), Err(KeyError::None)));
        assert!(matches!(argument(Some("a"), Some("61"), None).key(), Err(KeyError::Two)));
        assert!(matches!(argument(None, Some("6"), None).key(), Err(KeyError::Unreadable { .. })));
    }

    #[test]
    fn value_is_the_only_argument_where_the_key_is_an_option() {
        let value = Some(OsString::from("v"));
        let (key, found) = argument(Some("v"), Some("61"), None).key_and_value(None).unwrap();
        assert_eq!((&key[..], &found), (&b"a"[..], &value));
        let (key, found) = argument(Some("k"), None, None).key_and_value(value.clone()).unwrap();
        assert_eq!((&key[..], &found), (&b"k"[..], &value));
        assert!(matches!(argument(Some("k"), Some("61"), None).key_and_value(value), Err(KeyError::Two)));
    }
}
