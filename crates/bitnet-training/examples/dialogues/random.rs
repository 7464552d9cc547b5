//! Random numbers that are the same on every machine.

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A word that is none, so that words have to be copied rather than known.
    pub(crate) fn word(&mut self) -> String {
        const STARTS: [&str; 20] =
            ["b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "br", "st"];
        const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ea", "oo", "y"];
        const ENDS: [&str; 10] = ["", "", "n", "r", "l", "s", "t", "m", "ck", "ng"];
        let syllables = 1 + self.below(3);
        let mut word = String::new();
        for _ in 0..syllables {
            word.push_str(self.pick::<&str>(&STARTS));
            word.push_str(self.pick::<&str>(&VOWELS));
        }
        word + *self.pick::<&str>(&ENDS)
    }

    /// An index, as often as its share says.
    pub(crate) fn weighted(&mut self, shares: &[u32]) -> usize {
        let mut left = self.below(shares.iter().sum::<u32>() as usize) as u32;
        for (i, share) in shares.iter().enumerate() {
            match left.checked_sub(*share) {
                Some(rest) => left = rest,
                None => return i,
            }
        }
        shares.len() - 1
    }
}

/// FNV-1a, 64 bits, mixed once more.
pub(crate) fn hash(text: &str) -> u64 {
    let fnv = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    Random(fnv).next()
}
