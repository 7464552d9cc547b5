//! What a decoder block computes: the description that a step follows.

use super::{Config, RopeConfig};
use crate::{ModelError, Result};

/// Where the norms of the two branches of a block (attention and feed-forward) stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NormPlacement {
    /// At the beginning of a branch.
    #[default]
    Before,
    /// At its end, before it is added to the residual stream (OLMo 2).
    After,
    /// At both (GLM-4).
    Both,
}

impl NormPlacement {
    /// Whether a branch begins with a norm.
    pub fn before(self) -> bool {
        self != Self::After
    }

    /// Whether a branch ends with a norm.
    pub fn after(self) -> bool {
        self != Self::Before
    }
}

/// RMS norm of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Over each head, with the same weights `[head_dim]`, before it is rotated (Qwen3).
    Head,
    /// Over all heads together, before they are rotated (OLMo 2).
    All,
    /// Over each head, after it is rotated (Hunyuan).
    RotatedHead,
}

/// Constant factors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scales {
    /// Of the embedding.
    pub embedding: f32,
    /// Of a branch before it is added to the residual stream.
    pub residual: f32,
    /// Divisor of the logits.
    pub logits: f32,
    /// Of the scores of attention; `None`: `1 / sqrt(head_dim)`.
    pub attention: Option<f32>,
}

impl Default for Scales {
    fn default() -> Self {
        Self { embedding: 1., residual: 1., logits: 1., attention: None }
    }
}

/// Mixture of experts: feed-forward layers of which a router chooses some for each token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Experts {
    /// Experts of a layer; `intermediate_size` is the width of one.
    pub count: usize,
    /// Experts of a token: those with the largest softmax of the router's scores, which are the factors of their results.
    pub used: usize,
    /// Whether the factors of a token are divided by their sum.
    pub renormalize: bool,
    /// Gates are at most this before their activation, and what they multiply is between minus this and this (Maple).
    pub limit: Option<f32>,
}

/// Sizes of layers that keep a state of fixed size instead of keys and values: a short convolution and the gated delta rule
/// (Yang et al. 2024; Qwen3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaNet {
    /// Whether each layer is one; the others attend.
    pub layers: Vec<bool>,
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values, a multiple.
    pub value_heads: usize,
    /// Width of a query and a key.
    pub key_dim: usize,
    /// Width of a value.
    pub value_dim: usize,
    /// Inputs that the convolution sees, the token's own included.
    pub taps: usize,
    /// Whether head of values `n` reads key head `n % key_heads` and not `n / (value_heads / key_heads)`: the order of GGUF files.
    pub tiled: bool,
}

impl DeltaNet {
    /// Width of the convolution: queries, keys and values of all heads.
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.values()
    }

    /// Width of the values of all heads.
    pub fn values(&self) -> usize {
        self.value_heads * self.value_dim
    }
}

/// What the decoder blocks of a model compute beside their shape. The default is the block of Llama. Biases are those that the
/// checkpoint has.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Block {
    /// Where the norms of the branches stand.
    pub norms: NormPlacement,
    /// Whether there is a norm before the output projection of attention and before the down projection (BitNet b1.58).
    pub inner_norms: bool,
    /// Norm of queries and keys.
    pub qk_norm: Option<QkNorm>,
    /// Leading elements of a head that are rotated, even; `None`: all. Where not all are, or neighbours are, the rows of query
    /// and key are put into one order when they are read ([`Block::row`]), so that steps rotate halves of whole heads.
    pub rotary_dim: Option<usize>,
    /// Whether only layers that attend to a window rotate queries and keys (Maple).
    pub rotate_windows_only: bool,
    /// Whether neighbouring elements are rotated, and not one half of a head against the other.
    pub rotary_pairs: bool,
    /// How many of the last positions each layer attends to, the token's own included; empty, or `None` for a layer: all.
    pub windows: Vec<Option<u32>>,
    /// Rotary position embedding of layers that attend to a window, where it is another (Gemma 3).
    pub window_rope: Option<RopeConfig>,
    /// Constant factors.
    pub scales: Scales,
    /// Experts in place of one feed-forward layer.
    pub experts: Option<Experts>,
    /// Logits `l` become `cap * tanh(l / cap)` (Gemma).
    pub logit_cap: Option<f32>,
    /// Whether what attention mixed is multiplied by the sigmoid of a gate of its width (Qwen3.5).
    pub attention_gate: bool,
    /// Layers that keep a state instead of keys and values.
    pub delta: Option<DeltaNet>,
}

impl Block {
    /// How many of the last positions a layer attends to; `None`: all.
    pub fn window(&self, layer: usize) -> Option<u32> {
        self.windows.get(layer).copied().flatten()
    }

    /// The sizes of a layer that keeps a state instead of keys and values; `None`: it attends.
    pub fn delta(&self, layer: usize) -> Option<&DeltaNet> {
        self.delta.as_ref().filter(|delta| delta.layers.get(layer) == Some(&true))
    }

    /// The row of the checkpoint's query or key, heads of `head_dim`, that [`Weights`](crate::checkpoint::Weights) have as row
    /// `row`. Those that are not rotated are shared out behind the two halves of those that are, and get the angle 0; scores do
    /// not depend on the order.
    pub fn row(&self, row: usize, head_dim: usize) -> usize {
        let (head, at) = (row / head_dim, row % head_dim);
        let (half, rotated) = (head_dim / 2, self.rotary_dim.unwrap_or(head_dim));
        let (side, pair) = (at / half, at % half);
        let from = if pair >= rotated / 2 {
            rotated + side * (half - rotated / 2) + pair - rotated / 2
        } else if self.rotary_pairs {
            2 * pair + side
        } else {
            side * (rotated / 2) + pair
        };
        head * head_dim + from
    }

    /// The weights of a norm of queries or keys, in the order of their rows.
    pub(crate) fn order_norm(&self, weights: Vec<f32>, head_dim: usize) -> Vec<f32> {
        (0..weights.len()).map(|row| weights[self.row(row, head_dim)]).collect()
    }

    /// Whether the rows of query and key are not those of the checkpoint.
    pub(crate) fn reorders(&self) -> bool {
        self.rotary_dim.is_some() || self.rotary_pairs
    }

    /// The row of a matrix that holds, of each head of `head_dim`, the query, then the gate, which is row `row` of the query.
    pub fn query_with_gate(&self, row: usize, head_dim: usize) -> usize {
        let row = self.row(row, head_dim);
        row / head_dim * 2 * head_dim + row % head_dim
    }

    /// The row of such a matrix that is row `row` of the gate.
    pub fn gate_with_query(row: usize, head_dim: usize) -> usize {
        row / head_dim * 2 * head_dim + head_dim + row % head_dim
    }

    /// The first thing that it asks for and Llama's and BitNet's blocks do not, for code that computes or writes only these.
    pub fn beyond_bitnet(&self) -> Option<&'static str> {
        let Self { norms, inner_norms: _, qk_norm, rotary_dim, rotary_pairs, windows, window_rope, scales, .. } = self;
        [
            (*norms != NormPlacement::Before, "norms after attention and the feed-forward layer"),
            (qk_norm.is_some(), "norms of queries and keys"),
            (
                rotary_dim.is_some() || *rotary_pairs || self.rotate_windows_only,
                "rotation of a part of each head or of neighbouring elements",
            ),
            (windows.iter().any(Option::is_some) || window_rope.is_some(), "attention to a window of positions"),
            (*scales != Scales::default(), "scales of embedding, residual, attention or logits"),
            (self.logit_cap.is_some(), "a bound of the logits"),
            (self.experts.is_some(), "experts"),
            (self.attention_gate, "a gate of attention"),
            (self.delta.is_some(), "layers that keep a state instead of keys and values"),
        ]
        .into_iter()
        .find_map(|(asked, what)| asked.then_some(what))
    }

    pub(super) fn validate(&self, config: &Config) -> Result<()> {
        let Scales { embedding, residual, logits, attention } = self.scales;
        let scales = [embedding, residual, logits, attention.unwrap_or(1.), self.logit_cap.unwrap_or(1.)];
        let problem = if self.inner_norms && config.query_size() != config.hidden_size {
            // The norm inside attention is over hidden_size and reads the heads' output.
            format!("heads x head_dim is {}, but hidden_size is {}", config.query_size(), config.hidden_size)
        } else if let Some(dim) = self.rotary_dim.filter(|&d| d == 0 || d % 2 != 0 || d > config.head_dim) {
            format!("partial_rotary_factor leaves {dim} of {} elements of a head; they must be even", config.head_dim)
        } else if let Some(Experts { count, used, .. }) =
            self.experts.filter(|e| !(1..=e.count.min(4096)).contains(&e.used))
        {
            format!("{used} of {count} experts are used; it must be between 1 and all, and at most 4096")
        } else if self.experts.and_then(|e| e.limit).is_some_and(|limit| !(limit.is_finite() && limit > 0.)) {
            "the limit of gates of experts is not a positive number".into()
        } else if self.windows.contains(&Some(0)) {
            "sliding_window is 0; it must be positive or null".into()
        } else if scales.iter().any(|s| !(s.is_finite() && *s > 0.)) {
            format!(
                "a multiplier of embedding, residual, logits and attention, or the bound of the logits, {scales:?}, is not a positive number"
            )
        } else if let Some(delta) = &self.delta {
            return delta.validate();
        } else {
            return Ok(());
        };
        Err(ModelError::Config(problem))
    }
}

impl DeltaNet {
    fn validate(&self) -> Result<()> {
        let Self { layers: _, key_heads, value_heads, key_dim, value_dim, taps, tiled: _ } = *self;
        for (name, value, most) in [
            ("linear_num_key_heads", key_heads, 4096),
            ("linear_num_value_heads", value_heads, 4096),
            ("linear_key_head_dim", key_dim, 4096),
            ("linear_value_head_dim", value_dim, 4096),
            ("linear_conv_kernel_dim", taps, 64),
        ] {
            if value == 0 || value > most {
                return Err(ModelError::Config(format!("{name} is {value}; it must be between 1 and {most}")));
            }
        }
        if !value_heads.is_multiple_of(key_heads) {
            let problem =
                format!("linear_num_value_heads {value_heads} is not a multiple of linear_num_key_heads {key_heads}");
            return Err(ModelError::Config(problem));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_rotated_together_come_to_lie_half_a_head_apart() {
        let order = |rotary_dim, rotary_pairs| {
            let block = Block { rotary_dim, rotary_pairs, ..Block::default() };
            (8..16).map(|row| block.row(row, 8) - 8).collect::<Vec<_>>()
        };
        assert_eq!(order(None, false), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(order(None, true), [0, 2, 4, 6, 1, 3, 5, 7]);
        assert_eq!(order(Some(4), false), [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!(order(Some(4), true), [0, 2, 4, 5, 1, 3, 6, 7]);
    }
}
