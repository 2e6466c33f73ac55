//! Numbers that follow from the seed and from nothing else.

/// `SplitMix64` (Steele, Lea, Flood 2014): for drawing plans, in order.
#[derive(Debug, Clone)]
pub struct Rng(u64);

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

const fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// A stream of numbers of its own for every seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        finish(self.0)
    }

    /// A number below `bound`; zero if `bound` is.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// A number from `low` to `high`, both included.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True so many times in a thousand.
    pub const fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// As [`Rng::between`], for small numbers.
    pub fn small(&mut self, low: u8, high: u8) -> u8 {
        u8::try_from(self.between(low.into(), high.into())).unwrap_or(high)
    }
}

/// The fate of one thing: a hash of the seed, of what it belongs to, and of its number there. So
/// that leaving one action out of a plan changes nothing of the rest.
pub const fn fate(seed: u64, stream: u64, number: u64) -> u64 {
    finish(finish(seed ^ stream.wrapping_mul(GOLDEN)).wrapping_add(number.wrapping_mul(GOLDEN)))
}

/// A delay of about `scale`, now and then several times that: half of them are below twice the
/// scale, one in 64 beyond eight times.
pub const fn delay(scale: u64, fate: u64) -> u64 {
    let tail = (fate >> 32).trailing_zeros() as u64;
    scale / 2 + scale * if tail > 12 { 12 } else { tail } + (fate & 0xFFFF_FFFF) % (scale + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_are_those_of_splitmix64() {
        // Of the reference implementation, seed 1234567.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.next(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn fates_do_not_repeat_and_delays_are_near_their_scale() {
        let fates: std::collections::BTreeSet<u64> = (0..100)
            .flat_map(|stream| (0..100).map(move |number| fate(7, stream, number)))
            .collect();
        assert_eq!(fates.len(), 10_000);
        let mut delays: Vec<u64> = fates.iter().map(|fate| delay(1000, *fate)).collect();
        delays.sort_unstable();
        assert!((1000..2500).contains(&delays[5_000]), "{}", delays[5_000]);
        assert!(delays[9_999] > 8_000 && delays[0] >= 500);
    }
}
