//! What GGUF calls architectures and tensors.

use super::weights::{Norm, Projection};
use crate::config::{Architecture, HiddenAct};

/// Values of `general.architecture` that this build reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `bitnet-b1.58`: bitnet.cpp, the official file of 2B4T.
    BitNetB158,
    /// `bitnet-25`: an earlier upload of 2B4T.
    BitNet25,
    /// `bitnet`: llama.cpp.
    BitNet,
    /// `llama`: ternary weights in a Llama.
    Llama,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::BitNetB158, Self::BitNet25, Self::BitNet, Self::Llama];

    /// The value of `general.architecture`, which is also the prefix of its keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::BitNetB158 => "bitnet-b1.58",
            Self::BitNet25 => "bitnet-25",
            Self::BitNet => "bitnet",
            Self::Llama => "llama",
        }
    }

    /// Its decoder blocks.
    pub fn architecture(self) -> Architecture {
        if self == Self::Llama { Architecture::Llama } else { Architecture::BitNet }
    }

    /// The activation of a file that does not name one.
    pub fn default_act(self) -> HiddenAct {
        match self {
            Self::BitNetB158 | Self::BitNet25 => HiddenAct::Relu2,
            Self::BitNet | Self::Llama => HiddenAct::Silu,
        }
    }

    /// Whether rows of query and key interleave the halves of a head (llama.cpp's "norm" rotary embedding).
    pub fn interleaves_heads(self) -> bool {
        self == Self::Llama
    }
}

/// Name of a linear layer, without `.weight`.
pub fn linear_name(layer: usize, projection: Projection) -> String {
    let name = match projection {
        Projection::Query => "attn_q",
        Projection::Key => "attn_k",
        Projection::Value => "attn_v",
        Projection::Output => "attn_output",
        Projection::Gate => "ffn_gate",
        Projection::Up => "ffn_up",
        Projection::Down => "ffn_down",
    };
    format!("blk.{layer}.{name}")
}

/// Name of a norm's tensor.
pub fn norm_name(norm: Norm) -> String {
    match norm {
        Norm::Output => "output_norm.weight".into(),
        Norm::Attention(layer) => format!("blk.{layer}.attn_norm.weight"),
        Norm::AttentionInner(layer) => format!("blk.{layer}.attn_sub_norm.weight"),
        Norm::FeedForward(layer) => format!("blk.{layer}.ffn_norm.weight"),
        Norm::FeedForwardInner(layer) => format!("blk.{layer}.ffn_sub_norm.weight"),
    }
}
