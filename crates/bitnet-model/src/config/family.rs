//! The families of decoders: their names and defaults, and the description of their blocks.

use super::{Block, DeltaNet, Experts, NormPlacement, QkNorm, Raw, Scales};
use crate::{ModelError, Result};
use serde_json::Value;

/// Families of decoders, after the classes of transformers. The name decides what the keys and tensors of files are called;
/// what a block computes is in its [`Block`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// BitNet b1.58: a norm inside attention and inside the feed-forward layer.
    BitNet,
    /// Llama.
    Llama,
    /// Qwen2: biases of query, key and value.
    Qwen2,
    /// Qwen3: norms of queries and keys.
    Qwen3,
    /// Mistral: attention to a window of positions.
    Mistral,
    /// Granite: scales of embedding, residual, attention and logits.
    Granite,
    /// OLMo 2: norms at the end of branches, norms of queries and keys.
    Olmo2,
    /// GLM-4 (0414): norms at both ends of branches, neighbouring elements of a half of each head rotated.
    Glm4,
    /// Hunyuan 1 dense: norms of queries and keys after they are rotated.
    Hunyuan,
    /// MiniCPM: scales of embedding, residual and logits.
    MiniCpm,
    /// Gemma 3, text: four norms, windows with a rotary base of their own.
    Gemma3,
    /// Qwen3 with experts.
    Qwen3Moe,
    /// Maple: experts, and positions in layers with a window only.
    Maple,
    /// Qwen3.5, text: layers of the gated delta rule beside gated attention.
    Qwen35,
}

/// What the class of transformers takes for an absent key.
pub(super) struct Defaults {
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    /// `None`: as many as heads.
    pub kv_heads: Option<usize>,
    /// `None`: hidden / heads.
    pub head_dim: Option<usize>,
    pub vocab: usize,
    pub positions: usize,
    pub norm_eps: f32,
    pub act: &'static str,
    pub theta: f64,
    pub bos: Option<u32>,
    pub eos: &'static [u32],
    pub tied: bool,
}

const LLAMA: Defaults = Defaults {
    hidden: 4096,
    intermediate: 11008,
    layers: 32,
    heads: 32,
    kv_heads: None,
    head_dim: None,
    vocab: 32000,
    positions: 2048,
    norm_eps: 1e-6,
    act: "silu",
    theta: 10_000.,
    bos: Some(1),
    eos: &[2],
    tied: false,
};

const QWEN: Defaults = Defaults {
    intermediate: 22016,
    kv_heads: Some(32),
    vocab: 151_936,
    positions: 32768,
    bos: None,
    eos: &[],
    ..LLAMA
};

impl Architecture {
    /// All variants.
    pub const ALL: [Self; 14] = [
        Self::BitNet,
        Self::Llama,
        Self::Qwen2,
        Self::Qwen3,
        Self::Mistral,
        Self::Granite,
        Self::Olmo2,
        Self::Glm4,
        Self::Hunyuan,
        Self::MiniCpm,
        Self::Gemma3,
        Self::Qwen3Moe,
        Self::Maple,
        Self::Qwen35,
    ];

    /// The value of `model_type` in `config.json`.
    pub fn name(self) -> &'static str {
        self.names().0
    }

    /// The class in `architectures` of `config.json`.
    pub fn class(self) -> &'static str {
        self.names().1
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::BitNet => ("bitnet", "BitNetForCausalLM"),
            Self::Llama => ("llama", "LlamaForCausalLM"),
            Self::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
            Self::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
            Self::Mistral => ("mistral", "MistralForCausalLM"),
            Self::Granite => ("granite", "GraniteForCausalLM"),
            Self::Olmo2 => ("olmo2", "Olmo2ForCausalLM"),
            Self::Glm4 => ("glm4", "Glm4ForCausalLM"),
            Self::Hunyuan => ("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM"),
            Self::MiniCpm => ("minicpm", "MiniCPMForCausalLM"),
            Self::Gemma3 => ("gemma3_text", "Gemma3ForCausalLM"),
            Self::Qwen3Moe => ("qwen3_moe", "Qwen3MoeForCausalLM"),
            Self::Maple => ("maple", "MapleForCausalLM"),
            Self::Qwen35 => ("qwen3_5_text", "Qwen3_5ForCausalLM"),
        }
    }

    pub(super) fn find(model_type: Option<&str>, class: Option<&str>) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|family| match model_type {
            Some(name) => family.name() == name,
            None => Some(family.class()) == class,
        });
        found.ok_or_else(|| match model_type {
            Some(other) => {
                let known = Self::ALL.map(Self::name).join(", ");
                ModelError::Config(format!("model_type is {other:?}; this build runs {known}"))
            }
            None => ModelError::Config("no model_type: is this a model's config.json?".into()),
        })
    }

    pub(super) fn defaults(self) -> Defaults {
        match self {
            Self::BitNet => Defaults {
                hidden: 2560,
                intermediate: 6912,
                layers: 30,
                heads: 20,
                kv_heads: Some(5),
                vocab: 128_256,
                norm_eps: 1e-5,
                act: "relu2",
                theta: 500_000.,
                bos: Some(128_000),
                eos: &[128_001],
                ..LLAMA
            },
            Self::Llama | Self::Granite => LLAMA,
            Self::Hunyuan => Defaults { vocab: 290_943, norm_eps: 1e-5, ..LLAMA },
            Self::MiniCpm => Defaults { tied: true, ..LLAMA },
            Self::Gemma3 => Defaults {
                hidden: 2304,
                intermediate: 9216,
                layers: 26,
                heads: 8,
                kv_heads: Some(4),
                head_dim: Some(256),
                vocab: 262_208,
                positions: 131_072,
                act: "gelu_pytorch_tanh",
                theta: 1e6,
                bos: Some(2),
                eos: &[1],
                tied: true,
                ..LLAMA
            },
            Self::Qwen35 => Defaults {
                intermediate: 12288,
                heads: 16,
                kv_heads: Some(4),
                head_dim: Some(256),
                vocab: 248_320,
                ..QWEN
            },
            Self::Qwen2 => QWEN,
            Self::Maple => Defaults {
                hidden: 2048,
                intermediate: 512,
                layers: 24,
                heads: 16,
                kv_heads: Some(4),
                head_dim: Some(128),
                ..QWEN
            },
            // The width is that of an expert.
            Self::Qwen3Moe => Defaults { hidden: 2048, intermediate: 768, layers: 24, kv_heads: Some(4), ..QWEN },
            Self::Qwen3 => Defaults { head_dim: Some(128), ..QWEN },
            Self::Mistral => Defaults { intermediate: 14336, kv_heads: Some(8), positions: 131_072, ..LLAMA },
            Self::Olmo2 => Defaults { vocab: 50304, norm_eps: 1e-5, bos: None, eos: &[50279], ..LLAMA },
            Self::Glm4 => Defaults {
                intermediate: 13696,
                layers: 40,
                kv_heads: Some(2),
                head_dim: Some(128),
                vocab: 151_552,
                positions: 131_072,
                norm_eps: 1.5625e-7,
                bos: None,
                eos: &[151_329, 151_336, 151_338],
                ..LLAMA
            },
        }
    }

    /// The block that a `config.json` describes.
    pub(super) fn block(self, raw: &Raw, [layers, hidden, head_dim]: [usize; 3]) -> Result<Block> {
        let inside = |object: &Option<Value>| object.as_ref()?.get("partial_rotary_factor")?.as_f64();
        let part = inside(&raw.rope_scaling).or(inside(&raw.rope_parameters)).or(raw.partial_rotary_factor);
        let part = part.unwrap_or(match self {
            Self::Glm4 | Self::Maple => 0.5,
            Self::Qwen35 => 0.25,
            _ => 1.,
        });
        if part != 1. && !matches!(self, Self::Glm4 | Self::Maple | Self::Qwen35) {
            let problem = format!("partial_rotary_factor is {part}; {} rotates whole heads", self.name());
            return Err(ModelError::Config(problem));
        }
        for (key, asked) in [
            ("use_bidirectional_attention", raw.use_bidirectional_attention == Some(true)),
            ("attn_logit_softcapping", raw.attn_logit_softcapping.is_some()),
        ] {
            if asked {
                return Err(ModelError::Config(format!("{key} is set, which this build does not compute")));
            }
        }
        let scale = |value: Option<f32>| value.unwrap_or(1.);
        Ok(Block {
            norms: match self {
                Self::Olmo2 => NormPlacement::After,
                Self::Glm4 | Self::Gemma3 => NormPlacement::Both,
                _ => NormPlacement::Before,
            },
            inner_norms: self == Self::BitNet,
            qk_norm: match self {
                Self::Qwen3 | Self::Gemma3 | Self::Qwen3Moe | Self::Maple | Self::Qwen35 => Some(QkNorm::Head),
                Self::Olmo2 => Some(QkNorm::All),
                Self::Hunyuan => Some(QkNorm::RotatedHead),
                _ => None,
            },
            rotary_dim: (part != 1.).then_some((head_dim as f64 * part) as usize),
            rotary_pairs: self == Self::Glm4,
            rotate_windows_only: self == Self::Maple,
            windows: if self == Self::Qwen35 { Vec::new() } else { self.windows(raw, layers)? },
            scales: match self {
                Self::Granite => Scales {
                    embedding: scale(raw.embedding_multiplier),
                    residual: scale(raw.residual_multiplier),
                    logits: scale(raw.logits_scaling),
                    attention: Some(scale(raw.attention_multiplier)),
                },
                Self::MiniCpm => Scales {
                    embedding: scale(raw.scale_emb),
                    residual: (raw.scale_depth.unwrap_or(1.) / (layers as f64).sqrt()) as f32,
                    logits: (hidden as f64 / raw.dim_model_base.unwrap_or(1.)) as f32,
                    attention: None,
                },
                Self::Gemma3 => Scales {
                    embedding: (hidden as f64).sqrt() as f32,
                    attention: Some(raw.query_pre_attn_scalar.unwrap_or(256.).powf(-0.5) as f32),
                    ..Scales::default()
                },
                _ => Scales::default(),
            },
            window_rope: None,
            experts: self.experts(raw)?,
            logit_cap: raw.final_logit_softcapping.filter(|_| self == Self::Gemma3),
            attention_gate: self == Self::Qwen35,
            delta: if self == Self::Qwen35 { Some(self.delta(raw, layers)?) } else { None },
        })
    }

    /// Which layers keep a state, and its sizes.
    fn delta(self, raw: &Raw, layers: usize) -> Result<DeltaNet> {
        let kinds = match &raw.layer_types {
            None => {
                let interval = raw.full_attention_interval.unwrap_or(4).max(1);
                (1..=layers).map(|i| i % interval != 0).collect()
            }
            Some(kinds) => {
                let one = |kind: &String| match kind.as_str() {
                    "linear_attention" => Ok(true),
                    "full_attention" => Ok(false),
                    other => {
                        let problem = format!("layer_types has {other:?}, which {} does not compute", self.name());
                        Err(ModelError::Config(problem))
                    }
                };
                kinds.iter().map(one).collect::<Result<Vec<_>>>()?
            }
        };
        if kinds.len() != layers {
            let problem = format!("layer_types names {} layers; there are {layers}", kinds.len());
            return Err(ModelError::Config(problem));
        }
        Ok(DeltaNet {
            layers: kinds,
            key_heads: raw.linear_num_key_heads.unwrap_or(16),
            value_heads: raw.linear_num_value_heads.unwrap_or(32),
            key_dim: raw.linear_key_head_dim.unwrap_or(128),
            value_dim: raw.linear_value_head_dim.unwrap_or(128),
            taps: raw.linear_conv_kernel_dim.unwrap_or(4),
            tiled: false,
        })
    }

    fn experts(self, raw: &Raw) -> Result<Option<Experts>> {
        if !matches!(self, Self::Qwen3Moe | Self::Maple) {
            return Ok(None);
        }
        let some = raw.mlp_only_layers.as_ref().is_some_and(|layers| !layers.is_empty());
        if some || raw.decoder_sparse_step.is_some_and(|step| step != 1) {
            let problem =
                "mlp_only_layers or decoder_sparse_step asks for layers without experts, which are not computed";
            return Err(ModelError::Config(problem.into()));
        }
        Ok(Some(Experts {
            count: raw.num_experts.or(raw.num_local_experts).unwrap_or(if self == Self::Maple { 256 } else { 128 }),
            used: raw.num_experts_per_tok.unwrap_or(8),
            renormalize: raw.norm_topk_prob.unwrap_or(self == Self::Maple),
            limit: (self == Self::Maple).then(|| raw.swiglu_limit.unwrap_or(7.)),
        }))
    }

    /// The window of each layer; empty: none has one.
    fn windows(self, raw: &Raw, layers: usize) -> Result<Vec<Option<u32>>> {
        let window = match self {
            Self::Mistral | Self::Gemma3 => raw.sliding_window.unwrap_or(Some(4096)),
            Self::Maple => raw.sliding_window.unwrap_or(Some(512)),
            Self::Qwen2 | Self::Qwen3 | Self::Qwen3Moe if raw.use_sliding_window == Some(true) => {
                raw.sliding_window.unwrap_or(Some(4096))
            }
            _ => None,
        };
        let Some(kinds) = &raw.layer_types else {
            if matches!(self, Self::Gemma3 | Self::Maple) {
                // Every sixth, or fourth, attends to all positions.
                let default = if self == Self::Gemma3 { 6 } else { 4 };
                let pattern = raw.sliding_window_pattern.unwrap_or(default).max(1);
                return Ok((1..=layers).map(|i| window.filter(|_| i % pattern != 0)).collect());
            }
            let first =
                if matches!(self, Self::Mistral | Self::Qwen3Moe) { 0 } else { raw.max_window_layers.unwrap_or(28) };
            return Ok(window.map_or(Vec::new(), |w| (0..layers).map(|i| (i >= first).then_some(w)).collect()));
        };
        let one = |kind: &String| match kind.as_str() {
            "sliding_attention" if window.is_some() => Ok(window),
            // Mistral's class looks at sliding_window alone.
            "full_attention" if self != Self::Mistral || window.is_none() => Ok(None),
            other => {
                let problem = format!("layer_types has {other:?}, which {} does not compute here", self.name());
                Err(ModelError::Config(problem))
            }
        };
        let windows = kinds.iter().map(one).collect::<Result<Vec<_>>>()?;
        if windows.len() != layers {
            let problem = format!("layer_types names {} layers; there are {layers}", windows.len());
            return Err(ModelError::Config(problem));
        }
        Ok(if windows.iter().any(Option::is_some) { windows } else { Vec::new() })
    }
}
