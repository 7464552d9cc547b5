//! Random words by counter: Philox4x32-10 of Salmon, Moraes, Dror and Shaw (2011), "Parallel random numbers: as easy as 1,
//! 2, 3".

/// Ten rounds on `LANES` counters: the four words of each block, word by word, the lower words of the counter and of the
/// key first. `bitnet_device::backend::Op::Random` says which counters a stream of numbers has.
#[inline(always)]
pub fn philox<const LANES: usize>(mut counter: [[u32; LANES]; 4], key: [u32; 2]) -> [[u32; LANES]; 4] {
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let [c0, c1, c2, c3] = &mut counter;
        for lane in 0..LANES {
            let a = u64::from(c0[lane]) * 0xD251_1F53;
            let b = u64::from(c2[lane]) * 0xCD9E_8D57;
            c0[lane] = (b >> 32) as u32 ^ c1[lane] ^ k0;
            c1[lane] = b as u32;
            c2[lane] = (a >> 32) as u32 ^ c3[lane] ^ k1;
            c3[lane] = a as u32;
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors that Random123 publishes for Philox4x32-10 (`kat_vectors`).
    #[test]
    fn philox_gives_the_published_numbers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, want) in cases {
            let got = philox(counter.map(|word| [word; 3]), key);
            assert_eq!(got, want.map(|word: u32| [word; 3]));
        }
    }
}
