//! Keys on the command line: the same text that `scan` prints, or bytes in hexadecimal or base64.

use crate::text::{NotBytes, from_base64, from_hex, unescaped};
use bytes::Bytes;
use clap::Args;
use std::ffi::{OsStr, OsString};

/// The options that name a key whose bytes are hard to type.
#[derive(Args, Clone, Debug)]
pub struct KeyOptions {
    /// Name the key in hexadecimal instead: 00ff.
    #[arg(long, value_name = "HEX", conflicts_with = "key_base64")]
    key_hex: Option<String>,

    /// Name the key in base64 instead: AP8=.
    #[arg(long, value_name = "BASE64")]
    key_base64: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("name a key: KEY, --key-hex or --key-base64")]
    None,
    #[error("name the key once: as KEY, or by --key-hex or --key-base64")]
    Two,
    #[error("{what} can't be read: {source}")]
    Unreadable { what: &'static str, source: NotBytes },
}

impl KeyOptions {
    /// The key that is named by `argument`, or by an option instead.
    pub fn key(&self, argument: Option<&OsStr>) -> Result<Bytes, KeyError> {
        let unreadable = |source| KeyError::Unreadable { what: "the key", source };
        match (argument, &self.key_hex, &self.key_base64) {
            (Some(text), None, None) => unescape("the key", text),
            (None, Some(hex), _) => from_hex(hex).map(Bytes::from).map_err(unreadable),
            (None, None, Some(base64)) => from_base64(base64).map(Bytes::from).map_err(unreadable),
            (None, None, None) => Err(KeyError::None),
            (Some(_), ..) => Err(KeyError::Two),
        }
    }

    /// Of a command whose arguments are a key and a value: without the key, the first one is the value.
    pub fn key_and_value(
        &self,
        first: Option<OsString>,
        second: Option<OsString>,
    ) -> Result<(Bytes, Option<OsString>), KeyError> {
        match self.key_hex.is_some() || self.key_base64.is_some() {
            true if second.is_some() => Err(KeyError::Two),
            true => Ok((self.key(None)?, first)),
            false => Ok((self.key(first.as_deref())?, second)),
        }
    }
}

/// The bytes of a key, or of a part of one, as `scan` prints it.
pub fn unescape(what: &'static str, text: &OsStr) -> Result<Bytes, KeyError> {
    match unescaped(text.as_encoded_bytes()) {
        Ok(bytes) => Ok(bytes.into()),
        Err(source) => Err(KeyError::Unreadable { what, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(hex: Option<&str>, base64: Option<&str>) -> KeyOptions {
        KeyOptions { key_hex: hex.map(str::to_owned), key_base64: base64.map(str::to_owned) }
    }

    #[test]
    fn a_key_is_named_once() {
        let key = Some(OsStr::new("a\\x00b"));
        assert_eq!(options(None, None).key(key).unwrap(), &b"a\0b"[..]);
        assert_eq!(options(Some("6100"), None).key(None).unwrap(), &b"a\0"[..]);
        assert_eq!(options(None, Some("AP8=")).key(None).unwrap(), &b"\x00\xff"[..]);
        assert!(matches!(options(None, None).key(None), Err(KeyError::None)));
        assert!(matches!(options(Some("61"), None).key(key), Err(KeyError::Two)));
        assert!(matches!(options(Some("6"), None).key(None), Err(KeyError::Unreadable { .. })));
    }

    #[test]
    fn value_is_the_only_argument_where_the_key_is_an_option() {
        let word = |word: &str| Some(OsString::from(word));
        let (key, value) = options(Some("61"), None).key_and_value(word("v"), None).unwrap();
        assert_eq!((&key[..], value), (&b"a"[..], word("v")));
        let (key, value) = options(None, None).key_and_value(word("k"), word("v")).unwrap();
        assert_eq!((&key[..], value), (&b"k"[..], word("v")));
        assert!(matches!(options(Some("61"), None).key_and_value(word("k"), word("v")), Err(KeyError::Two)));
    }
}
