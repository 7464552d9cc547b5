//! The configuration of a model, common to all checkpoint formats, and parsing of Hugging Face's `config.json`.

mod block;
mod family;
mod json;
mod quantization;
mod rope;

pub use block::{Block, DeltaNet, Experts, NormPlacement, QkNorm, Scales};
pub use family::Architecture;
pub use quantization::{LinearClass, QuantizationConfig};
pub(crate) use rope::yarn_attention;
pub use rope::{RopeConfig, RopeScaling};

use crate::checkpoint::Projection;
use crate::{ModelError, Result};
use bitnet_core::backend::ActivationRule;
use serde::Deserialize;
use serde_json::Value;

/// Limit of extents and counts in a configuration; far above any model, far below an overflow.
const MAX_EXTENT: usize = 1 << 24;

/// Activation of the feed-forward gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HiddenAct {
    /// `relu(x)^2`.
    Relu2,
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU by a hyperbolic tangent.
    GeluTanh,
}

impl HiddenAct {
    /// The name used in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu2 => "relu2",
            Self::Silu => "silu",
            Self::GeluTanh => "gelu_pytorch_tanh",
        }
    }

    /// The activation of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "relu2" | "relu_squared" | "relu_sqr" => Ok(Self::Relu2),
            "silu" | "swish" => Ok(Self::Silu),
            "gelu_pytorch_tanh" | "gelu_new" => Ok(Self::GeluTanh),
            other => {
                let known = "this build computes relu2, silu and gelu_pytorch_tanh";
                Err(ModelError::Config(format!("hidden_act is {other:?}; {known}")))
            }
        }
    }
}

/// Configuration of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Family: how the keys and tensors of its files are called.
    pub architecture: Architecture,
    /// What its blocks compute.
    pub block: Block,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer, or of an expert.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Longest context the model was made for; with dynamic scaling of the rotary embedding, scaled.
    pub max_positions: usize,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// Activation of the feed-forward gate.
    pub hidden_act: HiddenAct,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// First token of a text.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// How linear layers are quantized; `None` if they are not.
    pub quantization: Option<QuantizationConfig>,
    /// How the inputs of ternary layers are rounded.
    pub activations: ActivationRule,
}

/// `config.json`. Absent keys take the defaults of the transformers class that `model_type` names.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    moe_intermediate_size: Option<usize>,
    num_experts: Option<usize>,
    num_local_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    norm_topk_prob: Option<bool>,
    swiglu_limit: Option<f32>,
    mlp_only_layers: Option<Vec<usize>>,
    decoder_sparse_step: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    /// Outer `None`: absent; inner: null, one key head for every query head.
    #[serde(default, deserialize_with = "present")]
    num_key_value_heads: Option<Option<usize>>,
    head_dim: Option<usize>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_parameters: Option<Value>,
    rope_scaling: Option<Value>,
    original_max_position_embeddings: Option<usize>,
    #[serde(default, deserialize_with = "present")]
    bos_token_id: Option<Option<Value>>,
    #[serde(default, deserialize_with = "present")]
    eos_token_id: Option<Option<Value>>,
    quantization_config: Option<Value>,
    bitnet_activations: Option<String>,
    weight_bits: Option<u32>,
    partial_rotary_factor: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    sliding_window: Option<Option<u32>>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    sliding_window_pattern: Option<usize>,
    embedding_multiplier: Option<f32>,
    residual_multiplier: Option<f32>,
    attention_multiplier: Option<f32>,
    logits_scaling: Option<f32>,
    scale_emb: Option<f32>,
    scale_depth: Option<f64>,
    dim_model_base: Option<f64>,
    query_pre_attn_scalar: Option<f64>,
    final_logit_softcapping: Option<f32>,
    attn_logit_softcapping: Option<f32>,
    use_bidirectional_attention: Option<bool>,
    full_attention_interval: Option<usize>,
    linear_num_key_heads: Option<usize>,
    linear_num_value_heads: Option<usize>,
    linear_key_head_dim: Option<usize>,
    linear_value_head_dim: Option<usize>,
    linear_conv_kernel_dim: Option<usize>,
}

/// Distinguishes null, `Some(None)`, from an absent key.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(d).map(Some)
}

impl Config {
    /// Reads the text of a `config.json`.
    ///
    /// Defaults of absent keys are those of the class of transformers; the form of 1bitLLM
    /// (`model_type` "llama" with `BitnetForCausalLM`) is a BitNet with SiLU whose master weights are quantized online.
    pub fn from_json(text: &str) -> Result<Self> {
        let unreadable = |e| ModelError::Config(format!("not a config.json: {e}"));
        let mut value: Value = serde_json::from_str(text).map_err(unreadable)?;
        if let Some(text) = value.get_mut("text_config").filter(|text| text.get("model_type").is_some()) {
            // Of a model that also sees: its text decoder.
            value = text.take();
        }
        let raw: Raw = serde_json::from_value(value).map_err(unreadable)?;
        let class = raw.architectures.as_ref().and_then(|names| names.first()).map(String::as_str);
        let one_bit_llm = class == Some("BitnetForCausalLM");
        let architecture = match one_bit_llm {
            true => Architecture::BitNet,
            false => Architecture::find(raw.model_type.as_deref(), class)?,
        };
        // The class that its keys are those of.
        let default = if one_bit_llm { Architecture::Llama } else { architecture }.defaults();

        let hidden_size = raw.hidden_size.unwrap_or(default.hidden);
        let heads = raw.num_attention_heads.unwrap_or(default.heads);
        let kv_heads = match raw.num_key_value_heads {
            Some(given) => given.unwrap_or(heads),
            None => default.kv_heads.unwrap_or(heads),
        };
        let head_dim = match raw.head_dim.or(default.head_dim) {
            // The BitNet class has no such key.
            Some(dim) if architecture != Architecture::BitNet => dim,
            _ if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
            _ => {
                let problem = format!("hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}");
                return Err(ModelError::Config(problem));
            }
        };
        let quantization = match &raw.quantization_config {
            Some(Value::Null) | None if one_bit_llm || raw.weight_bits == Some(1) => {
                Some(QuantizationConfig { class: LinearClass::Online, ..QuantizationConfig::default() })
            }
            Some(Value::Null) | None => None,
            Some(value) if crate::checkpoint::mlx::is_quantization(value) => None,
            Some(value) => Some(QuantizationConfig::from_json(value)?),
        };
        let theta = raw.rope_theta.unwrap_or(default.theta);
        let max_positions = raw.max_position_embeddings.unwrap_or(default.positions);
        // Gemma has parameters for each kind of layer; `rope_scaling` is of those that attend to all positions.
        let gemma = architecture == Architecture::Gemma3;
        let of_kind = |kind: &str| raw.rope_parameters.as_ref().and_then(|parameters| parameters.get(kind));
        let outside = rope::Outside {
            theta,
            max_positions,
            original: raw.original_max_position_embeddings,
            parameters: if gemma { of_kind("full_attention") } else { raw.rope_parameters.as_ref() },
            scaling: raw.rope_scaling.as_ref(),
            alpha_dim: (architecture == Architecture::Hunyuan).then_some(head_dim),
        };
        let local = rope::Outside {
            theta: raw.rope_local_base_freq.unwrap_or(10_000.),
            parameters: of_kind("sliding_attention"),
            scaling: None,
            ..outside
        };
        let (rope, window_rope) = match gemma {
            true => (RopeConfig::merged(outside)?, Some(RopeConfig::from_json(local)?)),
            false => (RopeConfig::from_json(outside)?, None),
        };
        let layers = raw.num_hidden_layers.unwrap_or(default.layers);
        let block = Block { window_rope, ..architecture.block(&raw, [layers, hidden_size, head_dim])? };
        let act = raw.hidden_activation.as_ref().filter(|_| gemma).or(raw.hidden_act.as_ref().filter(|_| !gemma));
        let config = Self {
            architecture,
            block,
            hidden_size,
            intermediate_size: match architecture {
                Architecture::Qwen3Moe | Architecture::Maple => raw.moe_intermediate_size,
                _ => raw.intermediate_size,
            }
            .unwrap_or(default.intermediate),
            layers,
            heads,
            kv_heads,
            head_dim,
            vocab_size: raw.vocab_size.unwrap_or(default.vocab),
            max_positions: match rope.scaling {
                RopeScaling::Dynamic { factor, original } => (factor * original as f64) as usize,
                _ => max_positions,
            },
            norm_eps: raw.rms_norm_eps.unwrap_or(default.norm_eps),
            rope,
            hidden_act: HiddenAct::from_name(act.map_or(default.act, String::as_str))?,
            tied: raw.tie_word_embeddings.unwrap_or(default.tied),
            bos: token_ids(raw.bos_token_id, default.bos.as_slice(), "bos_token_id")?.first().copied(),
            eos: token_ids(raw.eos_token_id, default.eos, "eos_token_id")?,
            activations: match raw.bitnet_activations {
                Some(name) => name.parse().map_err(|e| ModelError::Config(format!("bitnet_activations: {e}")))?,
                None if quantization.is_some() || architecture == Architecture::BitNet => ActivationRule::Token,
                None => ActivationRule::Float,
            },
            quantization,
        };
        config.validate()?;
        Ok(config)
    }

    /// An error if the numbers are inconsistent or out of range.
    pub fn validate(&self) -> Result<()> {
        let extents = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_positions),
        ];
        for (name, value) in extents {
            if value == 0 || value > MAX_EXTENT {
                return Err(ModelError::Config(format!("{name} is {value}; it must be between 1 and {MAX_EXTENT}")));
            }
        }
        let problem = if self.layers > 1024 {
            format!("num_hidden_layers is {}; at most 1024 are supported", self.layers)
        } else if self.heads > 4096 {
            format!("num_attention_heads is {}; at most 4096 are supported", self.heads)
        } else if !self.heads.is_multiple_of(self.kv_heads) {
            format!("num_attention_heads {} is not a multiple of num_key_value_heads {}", self.heads, self.kv_heads)
        } else if !self.head_dim.is_multiple_of(2) || self.head_dim > bitnet_kernels::float::MAX_HEAD_DIM {
            let most = bitnet_kernels::float::MAX_HEAD_DIM;
            format!("head_dim is {}; it must be even and at most {most}", self.head_dim)
        } else if !(self.norm_eps.is_finite() && self.norm_eps >= 0.) {
            format!("rms_norm_eps is {}; it must be a small positive number", self.norm_eps)
        } else {
            self.block.validate(self)?;
            let mut ropes = [&self.rope].into_iter().chain(&self.block.window_rope);
            return ropes.try_for_each(|rope| rope.validate(self.rotary_dim() / 2));
        };
        Err(ModelError::Config(problem))
    }

    /// Width of the concatenated query heads.
    pub fn query_size(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the concatenated key (or value) heads.
    pub fn kv_size(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Elements of a head that are rotated.
    pub fn rotary_dim(&self) -> usize {
        self.block.rotary_dim.unwrap_or(self.head_dim)
    }

    /// Cosines and sines `[positions, head_dim / 2]` of a rotary embedding of texts of up to `context` tokens, times its
    /// attention factor; where a part of a head is not rotated, the angle is 0.
    ///
    /// Where angles depend on the length of a text (dynamic scaling, LongRoPE), they are those that transformers takes in one
    /// pass over `context` tokens, at all positions: what is computed does not depend on how a text is divided into passes.
    pub fn rope_tables(&self, rope: &RopeConfig, positions: usize, context: usize) -> (Vec<f32>, Vec<f32>) {
        let mut frequencies = rope.inverse_frequencies(self.rotary_dim(), context);
        frequencies.resize(self.head_dim / 2, 0.);
        let (mut cos, mut sin) = bitnet_kernels::float::rope_tables(&frequencies, positions);
        let factor = rope.attention_factor();
        if factor != 1. {
            for row in cos.chunks_exact_mut(self.head_dim / 2).chain(sin.chunks_exact_mut(self.head_dim / 2)) {
                row[..self.rotary_dim() / 2].iter_mut().for_each(|x| *x *= factor);
            }
        }
        (cos, sin)
    }

    /// Weights of all linear layers in the blocks, without head and embedding.
    pub fn block_parameters(&self) -> usize {
        let experts = self.block.experts.map_or(1, |experts| experts.count);
        let of_one = |projection: Projection| {
            let (rows, cols) = projection.shape(self);
            let feed_forward = matches!(projection, Projection::Gate | Projection::Up | Projection::Down);
            rows * cols * if feed_forward { experts } else { 1 }
        };
        (0..self.layers).flat_map(|layer| Projection::of_layer(&self.block, layer)).map(of_one).sum()
    }
}

/// A token id, a list of them, or null for nothing; an absent key is the default.
fn token_ids(value: Option<Option<Value>>, default: &[u32], key: &str) -> Result<Vec<u32>> {
    let id = |v: &Value| {
        let id = v.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| ModelError::Config(format!("{key} is {v}; it must be a token id")))
    };
    match value {
        None => Ok(default.to_vec()),
        Some(None) => Ok(Vec::new()),
        Some(Some(Value::Array(ids))) => ids.iter().map(id).collect(),
        // Some published configurations write -1 for "none".
        Some(Some(v)) if v.as_i64() == Some(-1) => Ok(Vec::new()),
        Some(Some(v)) => Ok(vec![id(&v)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_keys_take_the_defaults_of_the_class() {
        let bitnet = Config::from_json(r#"{"model_type": "bitnet"}"#).unwrap();
        assert_eq!((bitnet.hidden_size, bitnet.intermediate_size, bitnet.layers), (2560, 6912, 30));
        assert_eq!((bitnet.heads, bitnet.kv_heads, bitnet.head_dim), (20, 5, 128));
        assert_eq!((bitnet.hidden_act, bitnet.rope.theta, bitnet.norm_eps), (HiddenAct::Relu2, 500_000., 1e-5));
        let llama = Config::from_json(r#"{"model_type": "llama", "num_key_value_heads": null}"#).unwrap();
        assert_eq!((llama.hidden_size, llama.kv_heads, llama.hidden_act), (4096, 32, HiddenAct::Silu));
        assert_eq!((llama.rope.theta, llama.norm_eps, llama.tied), (10_000., 1e-6, false));
        assert!(llama.quantization.is_none());
    }

    #[test]
    fn activations_belong_to_the_checkpoint() {
        let rule = |text: &str| Config::from_json(text).map(|config| config.activations);
        assert_eq!(rule(r#"{"model_type": "bitnet"}"#).unwrap(), ActivationRule::Token);
        assert_eq!(rule(r#"{"model_type": "qwen3"}"#).unwrap(), ActivationRule::Float);
        let quantized = r#"{"model_type": "qwen3", "quantization_config": {"quant_method": "bitnet"}}"#;
        assert_eq!(rule(quantized).unwrap(), ActivationRule::Token);
        for named in ActivationRule::ALL {
            let text = format!(r#"{{"model_type": "bitnet", "bitnet_activations": "{named}"}}"#);
            assert_eq!(rule(&text).unwrap(), named);
        }
        let message = rule(r#"{"model_type": "llama", "bitnet_activations": "int4"}"#).unwrap_err().to_string();
        assert!(message.contains("bitnet_activations") && message.contains("block256"), "{message}");
    }

    #[test]
    fn a_family_is_a_description() {
        let block = |text: &str| Config::from_json(text).unwrap().block;
        assert_eq!(block(r#"{"model_type": "llama"}"#), Block::default());
        assert_eq!(block(r#"{"model_type": "bitnet"}"#), Block { inner_norms: true, ..Block::default() });
        let qwen3 = Config::from_json(r#"{"model_type": "qwen3", "sliding_window": 8}"#).unwrap();
        assert_eq!((qwen3.head_dim, qwen3.block.qk_norm), (128, Some(QkNorm::Head)));
        assert_eq!((qwen3.bos, qwen3.eos.len(), qwen3.block.windows.len()), (None, 0, 0));
        let qwen2 = r#"{"model_type": "qwen2", "use_sliding_window": true, "num_hidden_layers": 30}"#;
        assert_eq!([27, 28, 29].map(|layer| block(qwen2).window(layer)), [None, Some(4096), Some(4096)]);
        assert_eq!(block(r#"{"model_type": "mistral", "sliding_window": 7}"#).window(31), Some(7));
        assert_eq!(block(r#"{"model_type": "mistral"}"#).window(0), Some(4096));
        assert_eq!(block(r#"{"model_type": "mistral", "sliding_window": null}"#), Block::default());
        let granite = block(r#"{"model_type": "granite", "logits_scaling": 8, "embedding_multiplier": 12}"#);
        assert_eq!(granite.scales, Scales { embedding: 12., residual: 1., logits: 8., attention: Some(1.) });
        let olmo2 = block(r#"{"model_type": "olmo2"}"#);
        assert_eq!((olmo2.norms, olmo2.qk_norm), (NormPlacement::After, Some(QkNorm::All)));
        assert!(!olmo2.norms.before() && olmo2.beyond_bitnet().is_some());
        let minicpm = block(
            r#"{"model_type": "minicpm", "scale_emb": 12, "scale_depth": 1.4, "num_hidden_layers": 4,
            "hidden_size": 1024, "dim_model_base": 256}"#,
        );
        assert_eq!(minicpm.scales, Scales { embedding: 12., residual: 0.7, logits: 4., attention: None });
        let alpha = r#"{"model_type": "hunyuan_v1_dense", "rope_scaling": {"type": "dynamic", "alpha": 1000.0}}"#;
        let hunyuan = Config::from_json(alpha).unwrap();
        assert_eq!((hunyuan.rope.scaling, hunyuan.block.qk_norm), (RopeScaling::None, Some(QkNorm::RotatedHead)));
        assert_eq!(hunyuan.rope.theta, 10_000. * 1000f64.powf(128. / 126.));
        let gemma = Config::from_json(
            r#"{"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8}, "num_hidden_layers": 7}"#,
        )
        .unwrap();
        assert_eq!((gemma.rope.theta, gemma.rope.scaling), (1e6, RopeScaling::Linear { factor: 8. }));
        assert_eq!(gemma.block.window_rope, Some(RopeConfig { theta: 1e4, scaling: RopeScaling::None }));
        assert_eq!([4, 5, 6].map(|layer| gemma.block.window(layer)), [Some(4096), None, Some(4096)]);
        assert_eq!((gemma.block.scales.embedding, gemma.block.scales.attention), (48., Some(0.0625)));
        assert_eq!((gemma.head_dim, gemma.hidden_act, gemma.tied), (256, HiddenAct::GeluTanh, true));
        let other = r#"{"model_type": "gemma3_text", "use_bidirectional_attention": true}"#;
        assert!(Config::from_json(other).unwrap_err().to_string().contains("use_bidirectional_attention"));
        let glm4 = Config::from_json(r#"{"model_type": "glm4"}"#).unwrap();
        assert_eq!((glm4.block.norms, glm4.block.rotary_dim, glm4.eos.len()), (NormPlacement::Both, Some(64), 3));
    }

    #[test]
    fn the_form_of_1bit_llm_is_a_bitnet_with_silu_quantized_online() {
        let text = r#"{"model_type": "llama", "architectures": ["BitnetForCausalLM"], "weight_bits": 1, "input_bits": 8,
            "hidden_size": 64, "num_attention_heads": 4, "hidden_act": "silu"}"#;
        let config = Config::from_json(text).unwrap();
        assert_eq!((config.architecture, config.hidden_act), (Architecture::BitNet, HiddenAct::Silu));
        assert_eq!(config.quantization.unwrap().class, LinearClass::Online);
    }

    #[test]
    fn the_attention_factor_multiplies_what_is_rotated() {
        let text = r#"{"model_type": "glm4", "head_dim": 8, "max_position_embeddings": 1048576, "rope_scaling":
            {"rope_type": "yarn", "factor": 4, "attention_factor": 0.5}}"#;
        let config = Config::from_json(text).unwrap();
        let (cos, sin) = config.rope_tables(&config.rope, 1, 1 << 20);
        assert_eq!((cos, sin), (vec![0.5, 0.5, 1., 1.], vec![0.; 4]));
    }

    #[test]
    fn contradictions_are_errors_that_name_the_key() {
        for (text, word) in [
            ("[]", "config.json"),
            ("{}", "model_type"),
            (r#"{"model_type": "mamba"}"#, "mamba"),
            (r#"{"model_type": "bitnet", "num_attention_heads": 0}"#, "num_attention_heads"),
            (r#"{"model_type": "bitnet", "num_key_value_heads": 3}"#, "num_key_value_heads"),
            (r#"{"model_type": "bitnet", "hidden_size": 18446744073709551615}"#, "hidden_size"),
            (r#"{"model_type": "llama", "hidden_act": "gelu"}"#, "gelu"),
            (r#"{"model_type": "llama", "head_dim": 63}"#, "head_dim"),
            (r#"{"model_type": "llama", "rms_norm_eps": -1}"#, "rms_norm_eps"),
            (r#"{"model_type": "llama", "eos_token_id": "x"}"#, "eos_token_id"),
            (r#"{"model_type": "llama", "rope_scaling": {"rope_type": "ntk", "factor": 2}}"#, "ntk"),
            (r#"{"model_type": "llama", "rope_scaling": {"rope_type": "linear"}}"#, "factor"),
            (r#"{"model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": "4"}}"#, "factor"),
            (r#"{"model_type": "llama", "rope_scaling": {"rope_type": "dynamic", "factor": 2, "alpha": 3}}"#, "alpha"),
            (r#"{"model_type": "llama", "rope_scaling": {"rope_type": "dynamic", "factor": 0.5}}"#, "dynamic"),
            (
                r#"{"model_type": "llama", "rope_scaling": {"type": "su", "short_factor": [1], "long_factor": [1]}}"#,
                "short_factor",
            ),
            (r#"{"model_type": "llama", "rope_parameters": {"full_attention": {}}}"#, "full_attention"),
            (r#"{"model_type": "llama", "quantization_config": {"quant_method": "awq"}}"#, "awq"),
            (r#"{"model_type": "llama", "rope_parameters": {"partial_rotary_factor": 0.5}}"#, "partial_rotary_factor"),
            (r#"{"model_type": "llama", "layer_types": ["sliding_attention"]}"#, "layer_types"),
            (r#"{"model_type": "qwen3", "layer_types": ["chunked_attention"]}"#, "layer_types"),
            (r#"{"model_type": "qwen2", "layer_types": ["full_attention"]}"#, "layer_types"),
            (r#"{"model_type": "mistral", "layer_types": ["full_attention"]}"#, "layer_types"),
            (r#"{"model_type": "glm4", "partial_rotary_factor": 0.01}"#, "partial_rotary_factor"),
            (r#"{"model_type": "mistral", "sliding_window": 0}"#, "sliding_window"),
            (r#"{"model_type": "granite", "residual_multiplier": 0}"#, "multiplier"),
        ] {
            let message = Config::from_json(text).unwrap_err().to_string();
            assert!(message.contains(word), "{text}: {message}");
            assert!(!message.contains('\n'));
        }
    }
}
