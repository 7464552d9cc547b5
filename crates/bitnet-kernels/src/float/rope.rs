//! Tables of rotary position embeddings.

/// Cosines and sines of the angles of each position, both `[positions, pairs]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTables {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
}

/// `1 / theta^(2i / dim)` for `i < dim / 2`, as transformers' default rotary embedding computes it in f32.
///
/// The power is computed in f64 and rounded once.
pub fn inverse_frequencies(theta: f32, dim: usize) -> Vec<f32> {
    let exponent = |i: usize| (2 * i) as f32 / dim as f32;
    let power = |i: usize| (theta as f64).powf(exponent(i) as f64) as f32;
    (0..dim / 2).map(|i| 1.0 / power(i)).collect()
}

impl RopeTables {
    /// The tables of positions `0..positions`: the angle is `position * inverse_frequencies[i]` in f32.
    pub fn new(inverse_frequencies: &[f32], positions: usize) -> RopeTables {
        let angles = || (0..positions).flat_map(|p| inverse_frequencies.iter().map(move |f| p as f32 * f));
        RopeTables {
            cos: angles().map(f32::cos).collect(),
            sin: angles().map(f32::sin).collect(),
            pairs: inverse_frequencies.len(),
        }
    }

    /// Rotated pairs of a head: half of its dimension.
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// Positions that the tables hold.
    pub fn positions(&self) -> usize {
        self.cos.len().checked_div(self.pairs).unwrap_or(0)
    }

    /// Cosines and sines of one position, `[pairs]` each.
    ///
    /// # Panics
    /// When the position is outside of the tables.
    pub fn position(&self, position: usize) -> (&[f32], &[f32]) {
        assert!(position < self.positions(), "position {position} of {}", self.positions());
        let range = position * self.pairs..(position + 1) * self.pairs;
        (&self.cos[range.clone()], &self.sin[range])
    }
}
