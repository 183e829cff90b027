//! The hash that compares replicas: XXH64 with seed zero.
//!
//! It was chosen because it is published with test vectors, fast without special instructions (several bytes a cycle),
//! and bijective in each input word, so that a single flipped bit always changes the state that it is mixed into. It
//! does not resist deliberate collisions; all that an attacker could hide by one is damage to their own data.
//!
//! Source: xxHash specification, section "XXH64 algorithm description".

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

/// XXH64 of `input` with seed zero. Replicas compare it across builds: it never changes.
pub fn hash(input: &[u8]) -> u64 {
    let (stripes, mut tail) = input.as_chunks::<32>();
    let mut state = if stripes.is_empty() { PRIME_5 } else { hash_stripes(stripes) };
    state = state.wrapping_add(input.len() as u64);

    while let Some((word, rest)) = tail.split_first_chunk() {
        state ^= round(0, u64::from_le_bytes(*word));
        state = state.rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
        tail = rest;
    }
    if let Some((word, rest)) = tail.split_first_chunk() {
        state ^= u64::from(u32::from_le_bytes(*word)).wrapping_mul(PRIME_1);
        state = state.rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        tail = rest;
    }
    for byte in tail {
        state ^= u64::from(*byte).wrapping_mul(PRIME_5);
        state = state.rotate_left(11).wrapping_mul(PRIME_1);
    }

    state = (state ^ (state >> 33)).wrapping_mul(PRIME_2);
    state = (state ^ (state >> 29)).wrapping_mul(PRIME_3);
    state ^ (state >> 32)
}

fn hash_stripes(stripes: &[[u8; 32]]) -> u64 {
    let mut lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, PRIME_1.wrapping_neg()];
    for stripe in stripes {
        for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks().0) {
            *lane = round(*lane, u64::from_le_bytes(*word));
        }
    }
    let [one, two, three, four] = lanes;
    let merged = one
        .rotate_left(1)
        .wrapping_add(two.rotate_left(7))
        .wrapping_add(three.rotate_left(12))
        .wrapping_add(four.rotate_left(18));
    lanes.iter().fold(merged, |merged, lane| (merged ^ round(0, *lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4))
}

#[inline]
fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn values_are_those_of_the_reference_implementation() {
        let counting: Vec<u8> = (0..101).collect();
        assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(hash(b"abc"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(hash(&counting[..32]), 0xcbf5_9c51_16ff_32b4);
        assert_eq!(hash(&counting), 0xe990_3849_5f85_381e);
    }
}
