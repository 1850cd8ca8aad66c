//! `limit_ratio`: which series belong to a sample, the same ones at every step and in every Prometheus.

use crate::labels::Labels;

const PRIMES: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

/// Whether a series is among the share `ratio` of all; of negative ones, among the rest.
pub(crate) fn is_in(labels: &Labels, ratio: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "as upstream divides them")]
    let offset = hash(&encoded(labels)) as f64 / u64::MAX as f64;
    if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio }
}

/// The bytes that upstream hashes: names and values, each after its length.
fn encoded(labels: &Labels) -> Vec<u8> {
    let mut out = Vec::new();
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        match u8::try_from(text.len()) {
            Ok(length) if length < 255 => out.push(length),
            _ => {
                out.push(255);
                out.extend(text.len().to_le_bytes().iter().take(3));
            }
        }
        out.extend(text.as_bytes());
    }
    out
}

/// XXH64 with seed 0.
fn hash(bytes: &[u8]) -> u64 {
    let [p1, p2, p3, p4, p5] = PRIMES;
    let mut rest = bytes;
    let mut sum = if bytes.len() >= 32 {
        let mut lanes = [p1.wrapping_add(p2), p2, 0, 0_u64.wrapping_sub(p1)];
        while let Some((block, more)) = rest.split_at_checked(32) {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(8)) {
                *lane = round(*lane, little_endian(word));
            }
            rest = more;
        }
        let turned = lanes.iter().zip([1, 7, 12, 18]).map(|(lane, turn)| lane.rotate_left(turn));
        let sum = turned.fold(0_u64, u64::wrapping_add);
        lanes.iter().fold(sum, |sum, lane| (sum ^ round(0, *lane)).wrapping_mul(p1).wrapping_add(p4))
    } else {
        p5
    };
    sum = sum.wrapping_add(bytes.len() as u64);
    while let Some((word, more)) = rest.split_at_checked(8) {
        sum ^= round(0, little_endian(word));
        sum = sum.rotate_left(27).wrapping_mul(p1).wrapping_add(p4);
        rest = more;
    }
    if let Some((word, more)) = rest.split_at_checked(4) {
        sum ^= little_endian(word).wrapping_mul(p1);
        sum = sum.rotate_left(23).wrapping_mul(p2).wrapping_add(p3);
        rest = more;
    }
    for byte in rest {
        sum ^= u64::from(*byte).wrapping_mul(p5);
        sum = sum.rotate_left(11).wrapping_mul(p1);
    }
    sum = (sum ^ sum >> 33).wrapping_mul(p2);
    sum = (sum ^ sum >> 29).wrapping_mul(p3);
    sum ^ sum >> 32
}

fn round(lane: u64, word: u64) -> u64 {
    let [p1, p2, ..] = PRIMES;
    lane.wrapping_add(word.wrapping_mul(p2)).rotate_left(31).wrapping_mul(p1)
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_published_ones() {
        assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(hash(b"abc"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(hash(b"Nobody inspects the spammish repetition"), 0xfbce_a83c_8a37_8bf1);
    }

    #[test]
    fn a_share_and_its_rest_are_all() {
        for at in 0..100 {
            let labels = Labels::from_texts([("at", at.to_string().as_str())]);
            assert_ne!(is_in(&labels, 0.3), is_in(&labels, -0.7));
        }
    }
}
