//! Random numbers and shuffles that need no state: each is a function of a seed and a place.

/// A number that looks random: the finalizer of SplitMix64 (Steele, Lea and Flood 2014) over both.
pub(super) fn number(seed: u64, place: u64) -> u64 {
    let mix = |mut z: u64| {
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let step = 0x9e37_79b9_7f4a_7c15u64;
    mix(mix(seed.wrapping_add(step)).wrapping_add(place.wrapping_mul(step)))
}

/// A number below `end`, every one as likely (but for 2^-64 of `end`).
pub(super) fn below(seed: u64, place: u64, end: usize) -> usize {
    ((u128::from(number(seed, place)) * end as u128) >> 64) as usize
}

/// Where `index` goes in a shuffle of `0..len`.
///
/// A Feistel network permutes the next power of 4; numbers outside walk on until they are inside.
pub(super) fn shuffled(seed: u64, index: usize, len: usize) -> usize {
    debug_assert!(index < len);
    let half = (usize::BITS - (len - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut at = index as u64;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for round in 0..6 {
            (left, right) = (right, left ^ (number(seed ^ round << 56, right) & mask));
        }
        at = left << half | right;
        if at < len as u64 {
            return at as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_has_each_index_once() {
        for len in [1, 2, 3, 17, 64, 65, 1000] {
            for seed in 0..5 {
                let mut all: Vec<usize> = (0..len).map(|i| shuffled(seed, i, len)).collect();
                if len > 16 {
                    let moved = all.iter().enumerate().filter(|(i, x)| i != *x).count();
                    assert!(moved > len / 2);
                }
                all.sort_unstable();
                assert_eq!(all, (0..len).collect::<Vec<_>>());
            }
        }
        let order = |seed| (0..100).map(|i| shuffled(seed, i, 100)).collect::<Vec<_>>();
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn numbers_fill_their_range_evenly() {
        let mut counts = [0; 10];
        (0..10_000).for_each(|i| counts[below(7, i, 10)] += 1);
        // Ten standard deviations.
        assert!(counts.iter().all(|&n| (700..1300).contains(&n)), "{counts:?}");
    }
}
