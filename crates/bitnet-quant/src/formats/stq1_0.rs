//! The codes of STQ1_0 blocks (Sherry): of every four weights one is zero.
//!
//! 256 weights in `qs[32]` and `sign[8]`. Group g of 64 has the weights `64 (g / 16) + g % 16 + 16 p`, p = 0..4, and the nibble g
//! of `qs`, the lower one of a byte first. Its upper two bits are the place of the zero; of the other three the first is +, the
//! second and third are - where bit 0 and bit 1 are set. Bit g of `sign` negates all.

/// Code of weight 0.
const ZERO: u8 = 1;

/// The four canonical codes of a nibble and a sign.
fn group(nibble: u8, negative: bool) -> [u8; 4] {
    let minus = [false, nibble & 1 != 0, nibble & 2 != 0];
    let mut signs = minus.map(|minus| if minus == negative { 2 } else { 0 }).into_iter();
    std::array::from_fn(|p| if p == usize::from(nibble >> 2) { ZERO } else { signs.next().unwrap_or(ZERO) })
}

/// Byte and lowest bit of weight p of group g in canonical codes.
fn place(g: usize, p: usize) -> (usize, usize) {
    let weight = g / 16 * 64 + g % 16 + 16 * p;
    (weight / 4, weight % 4 * 2)
}

/// `block [40]` to `codes [64]` in order.
pub(super) fn unpack(block: &[u8], codes: &mut [u8]) {
    codes.fill(0);
    let (qs, sign) = block.split_at(32);
    for g in 0..64 {
        let nibble = qs[g / 2] >> (g % 2 * 4) & 15;
        for (p, code) in group(nibble, sign[g / 8] >> (g % 8) & 1 != 0).into_iter().enumerate() {
            let (byte, bit) = place(g, p);
            codes[byte] |= code << bit;
        }
    }
}

/// `codes [64]` in order to `block [40]`, which must be zero. Groups without exactly one zero become others.
pub(super) fn pack(codes: &[u8], block: &mut [u8]) {
    let (qs, sign) = block.split_at_mut(32);
    for g in 0..64 {
        let lanes: [u8; 4] = std::array::from_fn(|p| {
            let (byte, bit) = place(g, p);
            codes[byte] >> bit & 3
        });
        let zero = lanes.iter().position(|&code| code == ZERO).unwrap_or(0);
        let mut signs = (0..4).filter(|&p| p != zero).map(|p| lanes[p] == 0);
        let [first, second, third] = [(); 3].map(|()| signs.next().unwrap_or(false));
        let nibble = (zero as u8) << 2 | u8::from(second != first) | u8::from(third != first) << 1;
        qs[g / 2] |= nibble << (g % 2 * 4);
        sign[g / 8] |= u8::from(first) << (g % 8);
    }
}
