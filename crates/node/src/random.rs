//! Random numbers, always from the operating system: identities must never repeat, whatever state a process starts in.

use std::fs::File;
use std::io::{self, Read};

/// 128 random bits.
pub fn random_u128() -> io::Result<u128> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}

/// 64 random bits, never zero.
pub fn random_u64() -> io::Result<u64> {
    Ok((random_u128()? as u64).max(1))
}
