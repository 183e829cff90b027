//! Key -> slot, by the rule of Redis Cluster.
//!
//! slot = CRC16/XMODEM(key) mod 16384. Cluster-aware Redis clients compute the same to find a key's node, so the
//! results must be identical. Hash tags: if the key has a `{`, and a `}` somewhere after it, only the bytes between the
//! first `{` and the first `}` after it are hashed, unless there are none. So `{user1000}.following` and
//! `{user1000}.followers` share a slot and therefore a shard: commands on both can be one entry of one log.
//!
//! CRC16/XMODEM: polynomial 0x1021, initial value 0, neither reflected nor inverted. One table lookup a byte.

use std::fmt;

/// One of the 16,384 buckets of the key space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// How many slots there are. Part of the Redis Cluster protocol.
    pub const COUNT: u16 = 16_384;

    /// `None` unless `slot` is in `0..16384`.
    pub const fn new(slot: u16) -> Option<Slot> {
        if slot < Slot::COUNT { Some(Slot(slot)) } else { None }
    }

    /// In `0..16384`.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot{}", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The slot of `key`. Keys with the same hash tag have the same slot.
pub fn slot_of(key: &[u8]) -> Slot {
    Slot(crc16(hashed_part(key)) % Slot::COUNT)
}

fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|&byte| byte == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

const CRC16_TABLE: [u16; 256] = crc16_table();

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| (crc << 8) ^ CRC16_TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn crc16_has_the_published_check_value() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
    }

    /// Values that a Redis server answers to `CLUSTER KEYSLOT`.
    #[test]
    fn slots_are_those_of_redis() {
        let known: [(&[u8], u16); 6] =
            [(b"", 0), (b"foo", 12182), (b"bar", 5061), (b"hello", 866), (b"somekey", 11058), (b"foo{hash_tag}", 2515)];
        for (key, slot) in known {
            assert_eq!(slot_of(key).get(), slot, "key {}", key.escape_ascii());
        }
    }

    /// The examples of the Redis Cluster specification, section "Hash tags", and the edges around them.
    #[test]
    fn hash_tag_is_between_the_first_brace_and_the_first_closing_one_after_it() {
        let parts: [(&[u8], &[u8]); 12] = [
            (b"{user1000}.following", b"user1000"),
            (b"{user1000}.followers", b"user1000"),
            (b"foo{}{bar}", b"foo{}{bar}"),
            (b"foo{{bar}}zap", b"{bar"),
            (b"foo{bar}{zap}", b"bar"),
            (b"foo{bar", b"foo{bar"),
            (b"foo}bar", b"foo}bar"),
            (b"foo}{bar}", b"bar"),
            (b"}{", b"}{"),
            (b"{", b"{"),
            (b"{}", b"{}"),
            (b"", b""),
        ];
        for (key, part) in parts {
            assert_eq!(hashed_part(key).escape_ascii().to_string(), part.escape_ascii().to_string());
        }
    }

    #[test]
    fn new_accepts_exactly_the_slots() {
        assert_eq!(Slot::new(0).map(Slot::get), Some(0));
        assert_eq!(Slot::new(16_383).map(Slot::get), Some(16_383));
        assert_eq!(Slot::new(16_384), None);
        assert_eq!(Slot::new(u16::MAX), None);
    }

    /// The definition of the checksum, bit by bit, against the table.
    fn crc16_by_division(bytes: &[u8]) -> u16 {
        let mut crc: u16 = 0;
        for byte in bytes {
            for bit in (0..8).rev() {
                let carry = (crc >> 15) ^ u16::from(byte >> bit & 1);
                crc = (crc << 1) ^ if carry == 1 { 0x1021 } else { 0 };
            }
        }
        crc
    }

    proptest! {
        #[test]
        fn table_agrees_with_division(bytes: Vec<u8>) {
            prop_assert_eq!(crc16(&bytes), crc16_by_division(&bytes));
        }

        #[test]
        fn keys_with_one_tag_share_a_slot(before in "[^{]*", tag in "[^}]+", after: Vec<u8>) {
            let key = [before.as_bytes(), b"{", tag.as_bytes(), b"}", &after].concat();
            prop_assert_eq!(slot_of(&key).get(), crc16(tag.as_bytes()) % Slot::COUNT);
        }
    }
}
