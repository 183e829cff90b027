//! An in-memory store with one bug. It speaks the part of the Redis protocol that `ringfort verify` uses.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// One in this many operations of the affected kind goes wrong.
const ONE_OF: u64 = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    None,
    /// A put is acknowledged but not applied.
    LosesWrites,
    /// A get returns the previous value.
    ReadsStale,
    /// A delete is acknowledged but not applied.
    Resurrects,
    /// An increment is applied twice but answered as if it were applied once.
    CountsTwice,
    /// An append is done twice and answered as if it were done once.
    AppendsTwice,
}

pub struct FaultyStore {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

struct State {
    bug: Bug,
    keys: BTreeMap<Vec<u8>, Held>,
    operations: u64,
}

#[derive(Clone, Default)]
struct Held {
    value: Option<Vec<u8>>,
    /// The key's previous value.
    before: Option<Vec<u8>>,
}

impl Held {
    fn set(&mut self, value: Option<Vec<u8>>) {
        self.before = self.value.take().or(self.before.take());
        self.value = value;
    }
}

impl FaultyStore {
    /// Listens until the process ends.
    pub fn start(bug: Bug) -> FaultyStore {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State { bug, keys: BTreeMap::new(), operations: 0 }));
        let shared = state.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (connection, state) = (connection.unwrap(), shared.clone());
                thread::spawn(move || serve(connection, &state));
            }
        });
        FaultyStore { endpoint, state }
    }

    /// The number of keys.
    pub fn keys(&self) -> usize {
        self.state.lock().unwrap().keys.values().filter(|held| held.value.is_some()).count()
    }
}

/// Serves a connection until it is closed.
fn serve(connection: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    loop {
        let count = number(&mut reader)?;
        let mut words = Vec::new();
        for _ in 0..count {
            let length = number(&mut reader)?;
            let mut word = vec![0; length + 2];
            reader.read_exact(&mut word)?;
            word.truncate(length);
            words.push(word);
        }
        let reply = state.lock().unwrap().execute(&words);
        reader.get_mut().write_all(&reply)?;
    }
}

/// The number in a line such as `*3` or `$12`.
fn number(reader: &mut impl BufRead) -> io::Result<usize> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    line.get(1..).and_then(|digits| digits.trim().parse().ok()).ok_or(io::ErrorKind::UnexpectedEof.into())
}

impl State {
    fn execute(&mut self, words: &[Vec<u8>]) -> Vec<u8> {
        self.operations += 1;
        let goes_wrong = self.operations.is_multiple_of(ONE_OF);
        let key = || words[1].clone();
        match &words[0][..] {
            b"SET" => {
                if !(goes_wrong && self.bug == Bug::LosesWrites) {
                    self.keys.entry(key()).or_default().set(Some(words[2].clone()));
                }
                b"+OK\r\n".to_vec()
            }
            b"GET" => {
                let Held { value, before } = self.keys.get(&key()).cloned().unwrap_or_default();
                let is_stale = goes_wrong && self.bug == Bug::ReadsStale;
                bulk(if is_stale { before.or(value) } else { value }.as_deref())
            }
            b"DEL" => {
                let held = self.keys.entry(key()).or_default();
                let found = u8::from(held.value.is_some());
                if !(goes_wrong && self.bug == Bug::Resurrects) {
                    held.set(None);
                }
                format!(":{found}\r\n").into_bytes()
            }
            b"INCRBY" => {
                let number = |bytes: &[u8]| str::from_utf8(bytes).unwrap().parse::<i64>().unwrap();
                let by = number(&words[2]);
                let held = self.keys.entry(key()).or_default();
                let sum = held.value.as_deref().map_or(0, number) + by;
                let is_doubled = goes_wrong && self.bug == Bug::CountsTwice;
                held.set(Some((sum + if is_doubled { by } else { 0 }).to_string().into_bytes()));
                format!(":{sum}\r\n").into_bytes()
            }
            b"APPEND" => {
                let held = self.keys.entry(key()).or_default();
                let mut value = held.value.clone().unwrap_or_default();
                value.extend_from_slice(&words[2]);
                let length = value.len();
                if goes_wrong && self.bug == Bug::AppendsTwice {
                    value.extend_from_slice(&words[2]);
                }
                held.set(Some(value));
                format!(":{length}\r\n").into_bytes()
            }
            b"SCAN" => {
                // The pattern is a prefix and an asterisk, and all keys fit on one page.
                let prefix = words[3].strip_suffix(b"*").unwrap();
                let held = self.keys.iter().filter(|(key, held)| held.value.is_some() && key.starts_with(prefix));
                let keys: Vec<Vec<u8>> = held.map(|(key, _)| bulk(Some(key))).collect();
                [b"*2\r\n$1\r\n0\r\n", format!("*{}\r\n", keys.len()).as_bytes(), &keys.concat()].concat()
            }
            _ => b"-ERR unknown command\r\n".to_vec(),
        }
    }
}

fn bulk(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
        None => b"$-1\r\n".to_vec(),
    }
}
