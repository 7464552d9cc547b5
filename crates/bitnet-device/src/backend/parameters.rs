//! Sizes and constants of fused operations.

/// The constants of [`Op::AdamStep`](super::Op::AdamStep). The decays are f64, for f32 would have 1 - 0.999 wrong in the fifth digit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Added to the root of the second mean.
    pub eps: f32,
}

/// Sizes of attention over a batch of texts of equal length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CausalShape {
    /// Texts.
    pub batch: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, even.
    pub head_dim: usize,
}

impl CausalShape {
    /// Numbers of a token in `qkv`: queries, keys, values of all heads side by side.
    pub fn row(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Numbers of a token in the result.
    pub fn out_row(&self) -> usize {
        self.heads * self.head_dim
    }
}
