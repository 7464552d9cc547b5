//! The decoder of BitNet b1.58 and of Llama as training runs it: latent weights, whole batches, gradients.

mod functions;

use crate::{Result, TrainingError};
use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet_model::config::Config;
use bitnet_quant::linear::{Compute, ProductOptions, linear, product};
use bitnet_quant::quantizers::{Granularity, Quantizer, Scheme};
use bitnet_quant::{StraightThroughEstimator, TernaryCodes};
pub(crate) use functions::widest;
use functions::{AttentionShape, attention, gated_halves, head_loss};
use indexmap::IndexMap;

/// How a [`Transformer`] computes; its shape is the [`Config`] of its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ComputeOptions {
    /// What products are computed in.
    pub compute: Compute,
    /// How each matrix of weights becomes ternary.
    pub weights: Quantizer,
    /// The gradient through quantizers.
    pub estimator: StraightThroughEstimator,
    /// Share of activations that training drops after the embedding and at the end of each branch.
    pub dropout: f64,
    /// Whether the blocks keep nothing but their inputs and compute again on the way back.
    pub checkpoint: bool,
}

impl Default for ComputeOptions {
    fn default() -> Self {
        let estimator = StraightThroughEstimator::Standard;
        Self { compute: Compute::F32, weights: Quantizer::AbsMean, estimator, dropout: 0., checkpoint: false }
    }
}

/// A decoder with latent weights, f32, named as in a Hugging Face checkpoint.
#[derive(Debug, Clone)]
pub struct Transformer {
    config: Config,
    options: ComputeOptions,
    /// Share of quantization, see [`Transformer::set_lambda`].
    lambda: f64,
    parameters: IndexMap<String, BitNetTensor>,
    /// Cosines and sines `[max_positions, head_dim / 2]`.
    angles: (BitNetTensor, BitNetTensor),
}

/// Documents that share rows: a token sees only those of its own.
#[derive(Debug, Clone, Copy)]
pub struct Documents<'a> {
    /// The place of each token in its document, integers `[B, T]`.
    pub positions: &'a BitNetTensor,
    /// The document of each token, integers `[B, T]`.
    pub segments: &'a BitNetTensor,
}

/// Name and shape of every parameter of a model of this configuration, in the order of computation.
pub fn parameter_shapes(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (hidden, inner, query, kv) =
        (config.hidden_size, config.intermediate_size, config.query_size(), config.kv_size());
    let sub_norms = config.block.inner_norms;
    let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, hidden])];
    for layer in 0..config.layers {
        let mut add =
            |name: &str, dims: &[usize]| all.push((format!("model.layers.{layer}.{name}.weight"), dims.to_vec()));
        add("input_layernorm", &[hidden]);
        add("self_attn.q_proj", &[query, hidden]);
        add("self_attn.k_proj", &[kv, hidden]);
        add("self_attn.v_proj", &[kv, hidden]);
        if sub_norms {
            add("self_attn.attn_sub_norm", &[hidden]);
        }
        add("self_attn.o_proj", &[hidden, query]);
        add("post_attention_layernorm", &[hidden]);
        add("mlp.gate_proj", &[inner, hidden]);
        add("mlp.up_proj", &[inner, hidden]);
        if sub_norms {
            add("mlp.ffn_sub_norm", &[inner]);
        }
        add("mlp.down_proj", &[hidden, inner]);
    }
    all.push(("model.norm.weight".to_owned(), vec![hidden]));
    if !config.tied {
        all.push(("lm_head.weight".to_owned(), vec![config.vocab_size, hidden]));
    }
    all
}

impl Transformer {
    /// Matrices normal with deviation `std` (0.02 in transformers), norms 1.
    pub fn new(
        config: Config,
        options: ComputeOptions,
        std: f64,
        generator: &mut Generator,
        device: &Device,
    ) -> Result<Self> {
        if config.rope.depends_on_context() {
            let problem = "the rotary embedding depends on the length of a text, which training does not compute";
            return Err(TrainingError::Invalid(problem.into()));
        }
        let mut parameters = IndexMap::new();
        for (name, dims) in parameter_shapes(&config) {
            let x = match dims.len() {
                1 => BitNetTensor::ones(&dims, BitNetDType::F32, device)?,
                _ => BitNetTensor::randn(&dims, BitNetDType::F32, device, generator)?.mul(std)?,
            };
            parameters.insert(name, x);
        }
        Self::from_parameters(config, options, parameters)
    }

    /// From tensors of any float dtype, named as [`parameter_shapes`] names them.
    ///
    /// # Errors
    /// When a tensor is missing, left over or of another shape, a block is neither Llama's nor BitNet's, or angles depend
    /// on the length of a text.
    pub fn from_parameters(
        config: Config,
        options: ComputeOptions,
        mut tensors: IndexMap<String, BitNetTensor>,
    ) -> Result<Self> {
        config.validate()?;
        if let Some(what) = config.block.beyond_bitnet() {
            return Err(TrainingError::Invalid(format!(
                "the blocks of {} have {what}; training runs the blocks of Llama and BitNet",
                config.architecture.name()
            )));
        }
        let mut parameters = IndexMap::new();
        for (name, dims) in parameter_shapes(&config) {
            let tensor =
                tensors.shift_remove(&name).ok_or_else(|| TrainingError::MissingTensor { name: name.clone() })?;
            if tensor.dims() != dims {
                let got = tensor.dims().to_vec();
                return Err(TrainingError::TensorShape { name, got, needed: dims });
            }
            let mut tensor = tensor.detach().to_dtype(BitNetDType::F32)?.contiguous()?;
            tensor.requires_grad_(true)?;
            parameters.insert(name, tensor);
        }
        if let Some((name, _)) = tensors.pop() {
            return Err(TrainingError::UnexpectedTensor { name });
        }
        let device = parameters[0].device().clone();
        let (cos, sin) = config.rope_tables(&config.rope, config.max_positions, config.max_positions);
        let dims = [config.max_positions, config.head_dim / 2];
        let angles = (BitNetTensor::from_slice(&cos, &dims, &device)?, BitNetTensor::from_slice(&sin, &dims, &device)?);
        Ok(Self { config, options, lambda: 1., parameters, angles })
    }

    /// Its shape and constants.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How it computes.
    pub fn options(&self) -> &ComputeOptions {
        &self.options
    }

    /// Changes how it computes.
    pub fn set_options(&mut self, options: ComputeOptions) {
        self.options = options;
    }

    /// How much of quantization the forward pass has, 0 (none) to 1 (all); see [`bitnet_quant::BitLinear::set_lambda`].
    pub fn set_lambda(&mut self, lambda: f64) {
        self.lambda = lambda.clamp(0., 1.);
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        self.angles.0.device()
    }

    /// Its parameters by name.
    pub fn tensors(&self) -> &IndexMap<String, BitNetTensor> {
        &self.parameters
    }

    /// Its parameters by name, to be changed; a tensor put in must have the shape of the one before.
    pub fn tensors_mut(&mut self) -> &mut IndexMap<String, BitNetTensor> {
        &mut self.parameters
    }

    fn get(&self, name: &str) -> &BitNetTensor {
        &self.parameters[name]
    }

    /// The residual stream after the final norm, `[B * T, hidden]`, of token ids, integers `[B, T]`. Drops out with random
    /// numbers of `generator` if there is one, as training does.
    pub fn hidden(
        &self,
        ids: &BitNetTensor,
        documents: Option<Documents>,
        generator: Option<&mut Generator>,
    ) -> Result<BitNetTensor> {
        Ok(self.hidden_and_projections(ids, documents, generator, None)?.0)
    }

    /// [`hidden`](Self::hidden), and the queries, keys and values of a block before they are rotated, side by side
    /// `[B * T, query + 2 kv]`.
    pub(crate) fn hidden_and_projections(
        &self,
        ids: &BitNetTensor,
        documents: Option<Documents>,
        mut generator: Option<&mut Generator>,
        block: Option<usize>,
    ) -> Result<(BitNetTensor, Option<BitNetTensor>)> {
        let mut projections = None;
        let (shape, rows) = self.attention_shape(ids, documents)?;
        let mut x = self.get("model.embed_tokens.weight").embedding(&ids.reshape(&[rows])?)?;
        x = self.drop(x, generator.as_deref_mut())?;
        for layer in 0..self.config.layers {
            if block == Some(layer) {
                projections = Some(self.projections(layer, &x)?);
            }
            x = match self.options.checkpoint {
                false => self.block(layer, x, &shape, generator.as_deref_mut())?,
                true => self.checkpointed(layer, x, &shape, generator.as_deref_mut())?,
            };
        }
        Ok((x.rms_norm(self.get("model.norm.weight"), self.config.norm_eps.into())?, projections))
    }

    /// Queries, keys and values of a block side by side.
    fn projections(&self, layer: usize, x: &BitNetTensor) -> Result<BitNetTensor> {
        let get = |name: &str| self.get(&format!("model.layers.{layer}.{name}.weight"));
        let normed = x.rms_norm(get("input_layernorm"), self.config.norm_eps.into())?;
        self.project(&normed, &[get("self_attn.q_proj"), get("self_attn.k_proj"), get("self_attn.v_proj")])
    }

    fn attention_shape(&self, ids: &BitNetTensor, documents: Option<Documents>) -> Result<(AttentionShape, usize)> {
        let c = &self.config;
        let (batch, tokens) = match *ids.dims() {
            [batch, tokens] if tokens <= c.max_positions => (batch, tokens),
            _ => {
                let needed = vec![0, c.max_positions];
                return Err(TrainingError::TensorShape { name: "ids".into(), got: ids.dims().to_vec(), needed });
            }
        };
        let (heads, kv_heads, head_dim) = (c.heads, c.kv_heads, c.head_dim);
        let (cos, sin, mask) = match documents {
            None => (self.angles.0.narrow(0, 0, tokens)?, self.angles.1.narrow(0, 0, tokens)?, None),
            Some(Documents { positions, segments }) => {
                let at = |table: &BitNetTensor| table.embedding(positions)?.unsqueeze(1);
                let mask = segments.unsqueeze(1)?.eq(&segments.unsqueeze(2)?)?.unsqueeze(1)?;
                (at(&self.angles.0)?, at(&self.angles.1)?, Some(mask))
            }
        };
        Ok((AttentionShape { batch, tokens, heads, kv_heads, head_dim, cos, sin, mask }, batch * tokens))
    }

    fn drop(&self, x: BitNetTensor, generator: Option<&mut Generator>) -> Result<BitNetTensor> {
        match generator {
            Some(generator) if self.options.dropout > 0. => Ok(x.dropout(self.options.dropout, generator)?),
            _ => Ok(x),
        }
    }

    /// A block that keeps its input only, and is computed again for its gradient with the same random numbers.
    fn checkpointed(
        &self,
        layer: usize,
        x: BitNetTensor,
        shape: &AttentionShape,
        generator: Option<&mut Generator>,
    ) -> Result<BitNetTensor> {
        let (model, shape) = (self.clone(), shape.clone());
        // The numbers that the block would draw, each time it is computed.
        let numbers = generator.map(|generator| {
            let of_block = generator.clone();
            if model.options.dropout > 0. {
                generator.advance(2 * x.elements() as u64);
            }
            of_block
        });
        let block = move |inputs: &[BitNetTensor]| {
            let mut generator = numbers.clone();
            let out = model.block(layer, inputs[0].clone(), &shape, generator.as_mut());
            out.map_err(|e| match e {
                TrainingError::Tensor(e) => e,
                e => bitnet_core::TensorOpError::Argument { op: "block", message: e.to_string() }.into(),
            })
        };
        Ok(bitnet_core::autograd::checkpoint(&[&x], block)?)
    }

    /// One decoder block.
    fn block(
        &self,
        layer: usize,
        x: BitNetTensor,
        shape: &AttentionShape,
        mut generator: Option<&mut Generator>,
    ) -> Result<BitNetTensor> {
        let eps = f64::from(self.config.norm_eps);
        let get = |name: &str| self.get(&format!("model.layers.{layer}.{name}.weight"));
        let inner_norm = |x: BitNetTensor, name: &str| match self.config.block.inner_norms {
            true => x.rms_norm(get(name), eps),
            false => Ok(x),
        };
        let mixed = inner_norm(attention(&self.projections(layer, &x)?, shape)?, "self_attn.attn_sub_norm")?;
        let branch = self.project(&mixed, &[get("self_attn.o_proj")])?;
        let x = x.add(&self.drop(branch, generator.as_deref_mut())?)?;
        let normed = x.rms_norm(get("post_attention_layernorm"), eps)?;
        let both = self.project(&normed, &[get("mlp.gate_proj"), get("mlp.up_proj")])?;
        let inner = inner_norm(gated_halves(self.config.hidden_act, &both)?, "mlp.ffn_sub_norm")?;
        let branch = self.project(&inner, &[get("mlp.down_proj")])?;
        Ok(x.add(&self.drop(branch, generator)?)?)
    }

    /// Products of the blocks: ternary where the model is quantized.
    fn project(&self, x: &BitNetTensor, weights: &[&BitNetTensor]) -> Result<BitNetTensor> {
        let lambda = if self.config.quantization.is_some() { self.lambda } else { 0. };
        let ComputeOptions { weights: quantizer, estimator, compute, .. } = self.options;
        let scheme = Scheme::new(quantizer, Granularity::Tensor);
        let options = ProductOptions { weights: scheme, estimator, lambda, compute, ..ProductOptions::default() };
        Ok(product(x, weights, options)?)
    }

    /// The codes of every ternary matrix, in the order of computation; none where the model is not quantized.
    pub fn ternary_weights(&self) -> Result<Vec<TernaryCodes>> {
        let quantized = |name: &str| self.config.quantization.is_some() && name.starts_with("model.layers.");
        let matrices = self.parameters.iter().filter(|(name, w)| quantized(name) && w.rank() == 2);
        let codes = |(name, w): (&String, &BitNetTensor)| {
            let ternary = self.options.weights.ternarize(&w.to_vec::<f32>()?, w.dims()[0], w.dims()[1]);
            Ok(ternary.map_err(|e| TrainingError::Invalid(format!("{name}: {e}")))?.0)
        };
        matrices.map(codes).collect()
    }

    pub(crate) fn head(&self) -> &BitNetTensor {
        self.get(if self.config.tied { "model.embed_tokens.weight" } else { "lm_head.weight" })
    }

    /// Logits `[B * T, vocab]` of token ids, integers `[B, T]`.
    pub fn logits(&self, ids: &BitNetTensor) -> Result<BitNetTensor> {
        Ok(linear(&self.hidden(ids, None, None)?, &[self.head()], self.options.compute)?)
    }

    /// Mean negative log-likelihood in nats of `targets`, integers `[B, T]`, after each token of `ids`, over the targets that are
    /// not negative. With a generator it drops out, as training does.
    pub fn loss(
        &self,
        ids: &BitNetTensor,
        targets: &BitNetTensor,
        documents: Option<Documents>,
        generator: Option<&mut Generator>,
    ) -> Result<BitNetTensor> {
        let hidden = self.hidden(ids, documents, generator)?;
        let targets = targets.reshape(&[hidden.dims()[0]])?;
        self.head_loss(&hidden, &targets)
    }

    /// The loss of a residual stream `[N, hidden]` with targets `[N]`.
    pub(crate) fn head_loss(&self, hidden: &BitNetTensor, targets: &BitNetTensor) -> Result<BitNetTensor> {
        Ok(head_loss(hidden, self.head(), targets, self.options.compute)?)
    }
}
