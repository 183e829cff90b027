//! Hand-made HTTP/2, to send what no library would send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const SETTINGS: u8 = 4;
pub const WINDOW_UPDATE: u8 = 8;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame (RFC 9113, section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The preface and empty settings.
pub fn greeting() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()
}

/// The headers of a gRPC call, each as a literal that is not indexed (RFC 7541, section 6.2.2).
pub fn call(stream: u32, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "node"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "longer ones need more than one byte for their length");
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// A gRPC message that claims a length.
pub fn message(claimed_bytes: u32, content: &[u8]) -> Vec<u8> {
    [&[0], &claimed_bytes.to_be_bytes()[..], content].concat()
}

/// A put of a small key and value.
pub fn put_frames(stream: u32, key: &str, value: &str) -> Vec<u8> {
    let field = |tag, text: &str| [&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let content = [field(0x0a, key), field(0x12, value)].concat();
    let data = frame(DATA, END_STREAM, stream, &message(content.len() as u32, &content));
    [call(stream, "/ringfort.v1.Kv/Put"), data].concat()
}

/// Calls `see` with the kind, flags and stream of each complete frame. Returns the number of bytes that they take.
pub fn for_each_frame(bytes: &[u8], mut see: impl FnMut(u8, u8, u32)) -> usize {
    let mut at = 0;
    while let Some(&[a, b, c, kind, flags, d, e, f, g]) = bytes.get(at..at + 9) {
        let end = at + 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        if end > bytes.len() {
            break;
        }
        see(kind, flags, u32::from_be_bytes([d, e, f, g]));
        at = end;
    }
    at
}

/// Sends all parts and reads until the node closes the connection or is silent for a moment.
pub fn exchange(port: u16, parts: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    for part in parts {
        // The node may close the connection before it has read everything.
        if stream.write_all(part).is_err() {
            break;
        }
    }
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        answer.extend(&buffer[..length]);
    }
    answer
}
