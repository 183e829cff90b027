//! The Redis protocol (RESP2), as far as a client needs it: commands out, replies in.

use std::io;

/// The longest reply that is accepted: far above a value of ours or a page of keys.
const MAX_REPLY_BYTES: usize = 4 << 20;

/// Arrays in arrays in arrays: SCAN answers with two levels.
const MAX_DEPTH: u32 = 3;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Text(String),
    Error(String),
    Integer(i64),
    /// `None` is "no such key".
    Bulk(Option<Vec<u8>>),
    Array(Vec<Reply>),
}

/// A command, as an array of its words.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The reply that `bytes` begin with, if all of it is there.
///
/// # Errors
/// The bytes are no reply, or too long a one.
pub fn reply(bytes: &[u8]) -> io::Result<Option<Reply>> {
    let mut rest = bytes;
    let parsed = parse(&mut rest, MAX_DEPTH)?;
    if parsed.is_none() && bytes.len() > MAX_REPLY_BYTES {
        return Err(bad("is too long"));
    }
    Ok(parsed)
}

fn parse(rest: &mut &[u8], depth: u32) -> io::Result<Option<Reply>> {
    let Some(line) = line(rest) else { return Ok(None) };
    let text = str::from_utf8(line).map_err(|_| bad("is not text"))?;
    let mut characters = text.chars();
    let sign = characters.next();
    let body = characters.as_str();
    let number = || body.parse::<i64>().map_err(|_| bad("has no number where one is due"));
    Ok(match sign {
        Some('+') => Some(Reply::Text(body.to_owned())),
        Some('-') => Some(Reply::Error(body.to_owned())),
        Some(':') => Some(Reply::Integer(number()?)),
        Some('$') => match number()? {
            -1 => Some(Reply::Bulk(None)),
            length => bulk(rest, length)?,
        },
        Some('*') => {
            let depth = depth.checked_sub(1).ok_or_else(|| bad("is nested too deeply"))?;
            let mut array = Vec::new();
            for _ in 0..number()? {
                match parse(rest, depth)? {
                    Some(element) => array.push(element),
                    None => return Ok(None),
                }
            }
            Some(Reply::Array(array))
        }
        _ => return Err(bad("is of no known type")),
    })
}

fn bulk(rest: &mut &[u8], length: i64) -> io::Result<Option<Reply>> {
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_REPLY_BYTES);
    let length = length.ok_or_else(|| bad("has a string of an impossible length"))?;
    if rest.len() < length + 2 {
        return Ok(None);
    }
    let (string, after) = rest.split_at(length);
    *rest = after.strip_prefix(b"\r\n").ok_or_else(|| bad("has a string that does not end"))?;
    Ok(Some(Reply::Bulk(Some(string.to_vec()))))
}

/// The next line without its end; `None` if it has not come to its end.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a reply {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_when_they_are_complete() {
        let page = b"*2\r\n$1\r\n0\r\n*2\r\n$2\r\nab\r\n$-1\r\n";
        let keys = Reply::Array(vec![Reply::Bulk(Some(b"ab".to_vec())), Reply::Bulk(None)]);
        let cases: [(&[u8], Reply); 4] = [
            (b"+OK\r\n", Reply::Text("OK".to_owned())),
            (b"-MOVED 7 h:1\r\n", Reply::Error("MOVED 7 h:1".to_owned())),
            (b":12\r\n", Reply::Integer(12)),
            (page, Reply::Array(vec![Reply::Bulk(Some(b"0".to_vec())), keys])),
        ];
        for (bytes, expected) in cases {
            assert_eq!(reply(bytes).unwrap(), Some(expected));
            for length in 0..bytes.len() {
                assert_eq!(reply(&bytes[..length]).unwrap(), None, "{length} bytes of {bytes:?}");
            }
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        let deep = b"*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n";
        let cases: [&[u8]; 6] = [b"?\r\n", b":x\r\n", b"$-2\r\n", b"$9999999999\r\n", b"$1\r\nabc", deep];
        for bytes in cases {
            assert!(reply(bytes).is_err(), "{bytes:?}");
        }
        assert!(reply(&vec![b'+'; MAX_REPLY_BYTES + 1]).is_err());
    }

    #[test]
    fn commands_are_arrays_of_strings() {
        assert_eq!(command(&[b"GET", b"k"]), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }
}
