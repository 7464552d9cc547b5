//! How the input of a ternary product is rounded.

use std::fmt;
use std::str::FromStr;

/// How the input of a ternary product is rounded to 8 bits: a property of the checkpoint, for a network answers well by the rule
/// that it was trained for.
///
/// A row is cut into blocks with a scale each. Within a block `x` is about `scale * q`; by [`Token`](Self::Token) it is
/// `q / scale`. Magnitudes of a block below 1e-30 count as that (1e-5 by token). A block with a NaN or an infinity has `q` 0 and a
/// scale that makes every product with it NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActivationRule {
    /// The whole row: `scale = 127 / max |x|`, `q = round(x * scale)`, ties to even (transformers, `integrations/bitnet.py`).
    Token,
    /// 32 columns, q8_0 of llama.cpp: `d = max |x| / 127`, `q = round(x * (1 / d))`, ties away from zero as in its reference
    /// (`quantize_row_q8_0_ref`, gguf-py); the scale is `d` rounded to f16.
    Block32,
    /// 256 columns, q8_K of llama.cpp: with `m` the first value of the largest magnitude, `i = -127 / m`, `q = round(i * x)`,
    /// ties to even; the scale is `1 / i`.
    Block256,
    /// Not rounded to 8 bits: 128 columns in 24 bits, `q = round(x * (8323072 / max |x|))`, ties to even, as three balanced
    /// digits of base 256, the lowest first; the scale is `max |x| / 8323072`. Products have the error of f32.
    Float,
}

impl ActivationRule {
    /// All rules.
    pub const ALL: [Self; 4] = [Self::Token, Self::Block32, Self::Block256, Self::Float];
    /// Columns whose `q` are summed together, by every rule.
    pub const SUM_COLUMNS: usize = 32;

    /// Columns of a block, of which the last may be shorter; `None`: the whole row.
    pub const fn block(self) -> Option<usize> {
        match self {
            Self::Token => None,
            Self::Block32 => Some(32),
            Self::Block256 => Some(256),
            Self::Float => Some(128),
        }
    }

    /// Blocks, and scales, of a row of `columns`.
    pub const fn blocks(self, columns: usize) -> usize {
        match self.block() {
            Some(block) => columns.div_ceil(block),
            None => 1,
        }
    }

    /// Numbers of 8 bits that a value is written in.
    pub const fn digits(self) -> usize {
        match self {
            Self::Float => 3,
            _ => 1,
        }
    }

    /// Its name in checkpoints and flags.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Block32 => "block32",
            Self::Block256 => "block256",
            Self::Float => "float",
        }
    }
}

impl fmt::Display for ActivationRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ActivationRule {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|rule| rule.name() == name);
        found.ok_or_else(|| {
            format!("{name:?} is not a rule of activations: use {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}
