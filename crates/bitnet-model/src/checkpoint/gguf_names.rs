//! GGUF's names of architectures and tensors, and its order of rows.

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
    /// `qwen2`
    Qwen2,
    /// `qwen3`
    Qwen3,
    /// `hunyuan-dense`
    Hunyuan,
    /// `minicpm`
    MiniCpm,
    /// `gemma3`
    Gemma3,
    /// `qwen3moe`
    Qwen3Moe,
    /// `maple`
    Maple,
    /// `qwen35`
    Qwen35,
}

impl Family {
    /// All variants.
    pub const ALL: [Self; 12] = [
        Self::BitNetB158,
        Self::BitNet25,
        Self::BitNet,
        Self::Llama,
        Self::Qwen2,
        Self::Qwen3,
        Self::Hunyuan,
        Self::MiniCpm,
        Self::Gemma3,
        Self::Qwen3Moe,
        Self::Maple,
        Self::Qwen35,
    ];

    /// The value of `general.architecture`, which is also the prefix of its keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::BitNetB158 => "bitnet-b1.58",
            Self::BitNet25 => "bitnet-25",
            Self::BitNet => "bitnet",
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Hunyuan => "hunyuan-dense",
            Self::MiniCpm => "minicpm",
            Self::Gemma3 => "gemma3",
            Self::Qwen3Moe => "qwen3moe",
            Self::Maple => "maple",
            Self::Qwen35 => "qwen35",
        }
    }

    /// Its decoder blocks.
    pub fn architecture(self) -> Architecture {
        match self {
            Self::BitNetB158 | Self::BitNet25 | Self::BitNet => Architecture::BitNet,
            Self::Llama => Architecture::Llama,
            Self::Qwen2 => Architecture::Qwen2,
            Self::Qwen3 => Architecture::Qwen3,
            Self::Hunyuan => Architecture::Hunyuan,
            Self::MiniCpm => Architecture::MiniCpm,
            Self::Gemma3 => Architecture::Gemma3,
            Self::Qwen3Moe => Architecture::Qwen3Moe,
            Self::Maple => Architecture::Maple,
            Self::Qwen35 => Architecture::Qwen35,
        }
    }

    /// The default activation.
    pub fn default_act(self) -> HiddenAct {
        match self {
            Self::BitNetB158 | Self::BitNet25 => HiddenAct::Relu2,
            Self::Gemma3 => HiddenAct::GeluTanh,
            _ => HiddenAct::Silu,
        }
    }

    /// Name of a norm's tensor.
    pub fn norm_name(self, norm: Norm) -> String {
        match norm {
            Norm::FeedForward(layer) if self == Self::Qwen35 => norm_name(Norm::AttentionAfter(layer)),
            _ => norm_name(norm),
        }
    }

    /// Whether rows of query and key interleave the halves of a head (llama.cpp's "norm" rotary embedding).
    pub fn interleaves_heads(self) -> bool {
        matches!(self, Self::Llama | Self::MiniCpm)
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
        Projection::AttentionGate => "attn_q",
        Projection::DeltaQkv => "attn_qkv",
        Projection::DeltaGate => "attn_gate",
        Projection::DeltaA => "ssm_alpha",
        Projection::DeltaB => "ssm_beta",
        Projection::DeltaOutput => "ssm_out",
    };
    format!("blk.{layer}.{name}")
}

/// Name of a norm's tensor.
pub fn norm_name(norm: Norm) -> String {
    match norm {
        Norm::Output => "output_norm.weight".into(),
        Norm::Attention(layer) => format!("blk.{layer}.attn_norm.weight"),
        Norm::Query(layer) => format!("blk.{layer}.attn_q_norm.weight"),
        Norm::Key(layer) => format!("blk.{layer}.attn_k_norm.weight"),
        Norm::AttentionInner(layer) => format!("blk.{layer}.attn_sub_norm.weight"),
        Norm::Delta(layer) => format!("blk.{layer}.ssm_norm.weight"),
        Norm::AttentionAfter(layer) => format!("blk.{layer}.post_attention_norm.weight"),
        Norm::FeedForward(layer) => format!("blk.{layer}.ffn_norm.weight"),
        Norm::FeedForwardInner(layer) => format!("blk.{layer}.ffn_sub_norm.weight"),
        Norm::FeedForwardAfter(layer) => format!("blk.{layer}.post_ffw_norm.weight"),
    }
}

/// The order of the rows of query and key in files of the family `llama`: the two halves of a head alternate, where
/// Hugging Face has one after the other.
pub mod interleaved {
    use crate::Result;
    use crate::checkpoint::LinearSource;
    use crate::config::Block;

    /// From halves one after the other to alternating ones.
    pub fn apply(source: LinearSource, head_dim: usize) -> Result<LinearSource> {
        source.reorder_rows(|row| {
            let (head, at) = (row / head_dim, row % head_dim);
            head * head_dim + at % 2 * (head_dim / 2) + at / 2
        })
    }

    /// From alternating halves to one after the other.
    pub fn undo(source: LinearSource, head_dim: usize) -> Result<LinearSource> {
        let block = Block { rotary_pairs: true, ..Block::default() };
        source.reorder_rows(|row| block.row(row, head_dim))
    }
}
