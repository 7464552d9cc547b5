//! Tables of rotary position embeddings.

/// `1 / theta^(2i / dim)` for `i < dim / 2`, as transformers' default rotary embedding computes it in f32.
///
/// The power is computed in f64 and rounded once.
pub fn inverse_frequencies(theta: f32, dim: usize) -> Vec<f32> {
    let exponent = |i: usize| (2 * i) as f32 / dim as f32;
    let power = |i: usize| (theta as f64).powf(exponent(i) as f64) as f32;
    (0..dim / 2).map(|i| 1.0 / power(i)).collect()
}

/// Cosines and sines `[positions, pairs]` of the angles `position * inverse_frequencies[i]`, which are rounded to f32.
pub fn rope_tables(inverse_frequencies: &[f32], positions: usize) -> (Vec<f32>, Vec<f32>) {
    let angles = (0..positions).flat_map(|p| inverse_frequencies.iter().map(move |f| p as f32 * f));
    angles.map(|angle| (angle.cos(), angle.sin())).unzip()
}
