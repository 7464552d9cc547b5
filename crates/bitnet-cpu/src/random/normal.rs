//! Normal numbers in f32, by additions, products, quotients and square roots alone, so that every CPU gives the same bits.

use super::LANES;
use std::f32::consts::FRAC_PI_2;

/// Two normal numbers of each pair of words (Box and Muller 1958): with `u = max(a, 1) / 2^32`, rounded to f32, and
/// `r = sqrt(-2 ln u)`, `r cos(2 pi b / 2^32)` and `r sin(2 pi b / 2^32)`. Each is within
/// `r / 2^22` of the exact one.
#[inline(always)]
pub(super) fn pairs(a: [u32; LANES], b: [u32; LANES]) -> [[f32; LANES]; 2] {
    let mut out = [[0.; LANES]; 2];
    for lane in 0..LANES {
        let radius = (-2. * ln(a[lane].max(1) as f32 / 4_294_967_296.)).sqrt();
        let (cos, sin) = turn(b[lane]);
        (out[0][lane], out[1][lane]) = (radius * cos, radius * sin);
    }
    out
}

/// Natural logarithm of a normal number: `k ln 2 + ln m` with `m` between `sqrt(1/2)` and `sqrt(2)`, and the polynomial of
/// FreeBSD's `e_logf.c`.
#[inline(always)]
fn ln(x: f32) -> f32 {
    const ROOT: u32 = 0x3f35_04f3;
    let shifted = x.to_bits().wrapping_sub(ROOT);
    let k = (shifted.cast_signed() >> 23) as f32;
    let f = f32::from_bits((shifted & 0x007f_ffff) + ROOT) - 1.;
    let s = f / (2. + f);
    let z = s * s;
    let w = z * z;
    let t1 = w * (0.400_009_72 + w * 0.242_790_79);
    let t2 = z * (0.666_666_6 + w * 0.284_987_87);
    let half = 0.5 * f * f;
    s * (half + (t2 + t1)) + k * 9.058_001e-6 - half + f + k * 0.693_138_1
}

/// Cosine and sine of `2 pi w / 2^32`: of the remainder from the nearest quarter turn, which is exact, by the polynomials of
/// Cephes (`sinf.c`).
#[inline(always)]
fn turn(w: u32) -> (f32, f32) {
    let quarter = w.wrapping_add(1 << 29) >> 30;
    let x = w.wrapping_sub(quarter << 30).cast_signed() as f32 * (FRAC_PI_2 / 1_073_741_824.);
    let z = x * x;
    let sin = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 0.166_666_55) * z * x + x;
    let cos = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * (z * z) - 0.5 * z + 1.;
    let (c, s) = if quarter & 1 == 0 { (cos, sin) } else { (sin, cos) };
    let signed = |x: f32, negative: u32| f32::from_bits(x.to_bits() ^ (negative & 2) << 30);
    (signed(c, quarter + 1), signed(s, quarter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    #[test]
    fn normal_numbers_are_near_the_exact_ones() {
        let mut worst = 0f64;
        let ends = [0, 1, 2, 3, 1 << 24, 1 << 29, (1 << 29) - 1, 1 << 30, 1 << 31, 3 << 30, u32::MAX - 300, u32::MAX];
        let spread = (0..1_000_000u32).map(|i| i.wrapping_mul(0x9e37_79b9) ^ i << 7);
        let words: Vec<u32> = ends.into_iter().chain(spread).collect();
        for (i, &a) in words.iter().enumerate() {
            let b = words[(i * 7919) % words.len()];
            let [cos, sin] = pairs([a; LANES], [b; LANES]).map(|z| f64::from(z[0]));
            let u = f64::from((f64::from(a.max(1)) / 4_294_967_296.) as f32);
            let (radius, angle) = ((-2. * u.ln()).sqrt(), TAU * f64::from(b) / 4_294_967_296.);
            let error = (cos - radius * angle.cos()).abs().max((sin - radius * angle.sin()).abs());
            if radius > 0. {
                worst = worst.max(error / radius);
            }
            assert!(radius > 0. || error == 0.);
        }
        println!("{worst:e}");
        assert!(worst <= 2f64.powi(-22), "{worst:e}");
    }
}
