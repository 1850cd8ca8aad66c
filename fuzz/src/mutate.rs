//! Mutations of seeds for machines without a fuzzer: flipped, cut, repeated, joined and random bytes.

use telemetry_tsdb::fs::sim::Rng;

/// Longest input.
const BYTES_MAX: usize = 1 << 16;

/// Bytes at which lengths and numbers turn.
const EDGES: [u8; 5] = [0, 1, 0x7F, 0x80, 0xFF];

/// Makes inputs of seeds.
pub struct Mutator {
    rng: Rng,
}

// === impl Mutator ===

impl Mutator {
    /// From a seed: the same one makes the same inputs.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed) }
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.rng.below(n as u64)).unwrap_or(0)
    }

    fn pick<'a>(&mut self, seeds: &'a [Vec<u8>]) -> &'a [u8] {
        let at = self.below(seeds.len());
        seeds.get(at).map_or(&[], Vec::as_slice)
    }

    /// The next input.
    pub fn next(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.pick(seeds).to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 | 1 => {
                    let bit = self.below(8);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << bit;
                    }
                }
                2 => bytes.truncate(at),
                3 => {
                    let noise = self.rng.number().to_le_bytes();
                    let end = bytes.len().min(at + self.below(8));
                    bytes.splice(at..end, noise);
                }
                4 => {
                    let end = bytes.len().min(at + self.below(64));
                    let again: Vec<u8> = bytes.get(at..end).unwrap_or(&[]).to_vec();
                    bytes.splice(at..at, again);
                }
                5 => {
                    let other = self.pick(seeds).to_vec();
                    let from = self.below(other.len() + 1);
                    bytes.truncate(at);
                    bytes.extend_from_slice(other.get(from..).unwrap_or(&[]));
                }
                _ => {
                    let edge = self.below(EDGES.len());
                    if let Some((byte, edge)) = bytes.get_mut(at).zip(EDGES.get(edge)) {
                        *byte = *edge;
                    }
                }
            }
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }
}
