//! GGUF files for bitnet.cpp (I2_S), llama.cpp (TQ1_0, TQ2_0, Q2_0, Q1_0) and PrismML's fork of it (PQ2_0, PTQ1_0).

use super::{Embeddings, Target, encode, one_scale, ternary};
use crate::checkpoint::gguf_names::{Family, interleaved, linear_name, norm_name};
use crate::checkpoint::{Checkpoint, DenseTensor, LinearSource, Norm, Projection, WeightSource, Weights};
use crate::checkpoint::{gguf_config, gguf_vocab};
use crate::config::{Architecture, QkNorm, RopeScaling, Scales, yarn_attention};
use crate::gguf::{GgufType, GgufWriter, Metadata, Value};
use crate::{Config, ModelError, Result};
use bitnet_core::BitNetDType;
use bitnet_quant::TernaryScales;
use bitnet_quant::formats::{self, ScaledFormat, i2_s::I2sOrder};
use std::path::Path;

/// Source of the data of a tensor.
enum Source {
    Values(Vec<f32>),
    Embedding,
    Linear(Option<(usize, Projection)>),
}

/// The linear layer at that position, in the file's order of rows; `None` is the head.
struct Writer<'a> {
    weights: &'a dyn Weights,
    family: Family,
    ternary: GgufType,
    /// Of its blocks; I2_S has none.
    format: Option<&'static ScaledFormat>,
    embeddings: BitNetDType,
}

pub(super) fn write(
    checkpoint: &Checkpoint,
    out: &Path,
    target: Target,
    embeddings: Embeddings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let weights = checkpoint.weights();
    let config = weights.config();
    let family = family(config, target)?;
    // The number of the main type as llama.cpp writes it, its fork, or bitnet.cpp (I2_S).
    let (ternary, format, file_type) = match target {
        Target::I2S => (GgufType::I2_S, None, 40),
        Target::Tq1_0 => (GgufType::TQ1_0, Some(&formats::TQ1_0), 36),
        Target::Q2_0 => (GgufType::Q2_0_G64, Some(&formats::Q2_0_G64), 41),
        Target::Pq2_0 => (GgufType::PQ2_0, Some(&formats::Q2_0_G128), 141),
        Target::Ptq1_0 => (GgufType::PTQ1_0, Some(&formats::PTQ1_0), 143),
        Target::Q1_0 => (GgufType::Q1_0, Some(&formats::Q1_0), 40),
        _ => (GgufType::TQ2_0, Some(&formats::TQ2_0), 37),
    };
    let embeddings = match embeddings {
        Embeddings::F32 => BitNetDType::F32,
        Embeddings::F16 => BitNetDType::F16,
        Embeddings::Q8_0 => BitNetDType::Q8_0,
        Embeddings::Q6K => BitNetDType::Q6K,
    };
    let plan = Writer { weights, family, ternary, format, embeddings };
    let mut writer = GgufWriter::new(metadata(checkpoint, family, file_type)?);
    let mut sources = Vec::new();
    plan.announce(&mut writer, &mut sources)?;

    let total = sources.len();
    let mut next = sources.into_iter().enumerate();
    writer.write(out, |_, sink| {
        let (index, source) = next.next().expect("a source for every tensor");
        let bytes = match source {
            Source::Values(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Source::Embedding => encode(&plan.weights.embedding()?, plan.embeddings)?,
            Source::Linear(place) => plan.data(&plan.linear(place)?, place.is_none())?,
        };
        checkpoint.check_unchanged()?;
        progress(index + 1, total);
        sink.put(&bytes).map_err(ModelError::from)
    })?;
    Ok(())
}

/// The architecture of the file; an error if none says what the model computes.
fn family(config: &Config, target: Target) -> Result<Family> {
    let (family, qk_norm) = match (config.block.inner_norms, config.architecture) {
        (true, _) if target == Target::I2S => (Family::BitNetB158, None),
        (true, _) => (Family::BitNet, None),
        (_, Architecture::Qwen2) => (Family::Qwen2, None),
        (_, Architecture::Qwen3) => (Family::Qwen3, Some(QkNorm::Head)),
        (_, Architecture::Hunyuan) => (Family::Hunyuan, Some(QkNorm::RotatedHead)),
        (_, Architecture::MiniCpm) => (Family::MiniCpm, None),
        _ => (Family::Llama, None),
    };
    // What the family says is taken away from what it would have to say.
    let mut block = config.block.clone();
    if block.qk_norm == qk_norm {
        block.qk_norm = None;
    }
    if family == Family::MiniCpm && block.scales.attention.is_none() {
        block.scales = Scales::default();
    }
    let rope = match config.rope.scaling {
        RopeScaling::Dynamic { .. } => Some("angles that depend on the length of a text"),
        RopeScaling::Yarn { beta_fast, beta_slow, truncate, .. }
            if (beta_fast, beta_slow, truncate) != (32., 1., true) =>
        {
            Some("a ramp of yarn that llama.cpp does not compute")
        }
        _ => None,
    };
    match block.beyond_bitnet().or(rope) {
        Some(what) => {
            let problem =
                format!("its blocks have {what}, which the GGUF families written here cannot say: use --to hf");
            Err(ModelError::Convert(problem))
        }
        None => Ok(family),
    }
}

impl Writer<'_> {
    /// Declares every tensor, and pushes the source of its data.
    fn announce(&self, writer: &mut GgufWriter, sources: &mut Vec<Source>) -> Result<()> {
        let config = self.weights.config();
        let mut add = |name: &str, ty: GgufType, shape: &[usize], source: Source| -> Result<()> {
            let (cols, rows) = (shape[shape.len() - 1], shape[..shape.len() - 1].iter().product());
            self.check_rows(name, ty, rows, cols)?;
            writer.add(name, ty, shape)?;
            sources.push(source);
            Ok(())
        };
        let norm = |norm: Norm| Ok::<_, ModelError>((norm_name(norm), self.weights.norm(norm)?));
        let embedding = [config.vocab_size, config.hidden_size];
        add("token_embd.weight", gguf_type(self.embeddings), &embedding, Source::Embedding)?;
        let (name, values) = norm(Norm::Output)?;
        add(&name, GgufType::F32, &[values.len()], Source::Values(values))?;
        let head = self.weights.head()?.is_some().then_some((None, "output".to_string()));
        let blocks = (0..config.layers).flat_map(|layer| {
            Projection::ALL.map(|projection| (Some((layer, projection)), linear_name(layer, projection)))
        });
        for (place, base) in head.into_iter().chain(blocks) {
            let source = self.linear(place)?;
            if source.inner_norm.is_some() {
                let problem =
                    format!("{base} has a norm of its own (use_rms_norm), which GGUF cannot hold: use --to hf");
                return Err(ModelError::Convert(problem));
            }
            let (ty, rows, cols) = match &source.weight {
                WeightSource::Ternary { codes, .. } => (self.ternary, codes.rows(), codes.cols()),
                WeightSource::Dense(d) => (gguf_type(self.dense_type(d, place.is_none())), d.rows, d.cols),
            };
            add(&format!("{base}.weight"), ty, &[rows, cols], Source::Linear(place))?;
            if ternary(&source).is_some() {
                // Whether the type holds it is known before the file is begun.
                self.data(&source, false).map_err(|e| ModelError::Convert(format!("{base}: {e}")))?;
            }
            if let Some(scale) = ternary(&source).and_then(|(_, scales)| self.separate_scale(scales)) {
                add(&format!("{base}.scale"), GgufType::F32, &[1], Source::Values(vec![scale]))?;
            }
            if let Some(bias) = source.bias {
                add(&format!("{base}.bias"), GgufType::F32, &[bias.len()], Source::Values(bias))?;
            }
        }
        for (name, values) in Norm::all(config).skip(1).map(norm).collect::<Result<Vec<_>>>()? {
            add(&name, GgufType::F32, &[values.len()], Source::Values(values))?;
        }
        if matches!(config.rope.scaling, RopeScaling::Llama3 { .. } | RopeScaling::PerPair(_)) {
            let plain = crate::config::RopeConfig { scaling: RopeScaling::None, ..config.rope.clone() };
            let scaled = config.rope.inverse_frequencies(config.head_dim, config.max_positions);
            let factors: Vec<f32> = plain
                .inverse_frequencies(config.head_dim, config.max_positions)
                .iter()
                .zip(scaled)
                .map(|(p, s)| p / s)
                .collect();
            add("rope_freqs.weight", GgufType::F32, &[factors.len()], Source::Values(factors))?;
        }
        if let RopeScaling::LongRope { short, long, .. } = &config.rope.scaling {
            for (kind, factors) in [("short", short), ("long", long)] {
                let name = format!("rope_factors_{kind}.weight");
                add(&name, GgufType::F32, &[factors.len()], Source::Values(factors.clone()))?;
            }
        }
        Ok(())
    }

    /// If rows are not whole blocks of a type, an error that names the types that fit.
    fn check_rows(&self, name: &str, ty: GgufType, rows: usize, cols: usize) -> Result<()> {
        // I2_S blocks span rows, but readers need multiples of 128.
        let block = if ty == GgufType::I2_S { 128 } else { ty.block().map_or(1, |b| b.0) };
        if cols.is_multiple_of(block) {
            return Ok(());
        }
        let fits = match ty.is_ternary() {
            true if self.whole_blocks(128)? => "--to i2_s (blocks of 128)",
            true if self.whole_blocks(64)? => "--to q2_0 (blocks of 64)",
            true => "--to hf (any number of columns)",
            _ if cols.is_multiple_of(32) => "--embeddings q8_0 (blocks of 32)",
            _ => "--embeddings f16 (any number of columns)",
        };
        let problem =
            format!("{name} is {rows} x {cols}, and rows of {} are whole blocks of {block}; use {fits}", ty.name());
        Err(ModelError::Convert(problem))
    }

    /// Whether every ternary layer has rows of whole blocks of so many weights.
    fn whole_blocks(&self, block: usize) -> Result<bool> {
        let config = self.weights.config();
        let columns = |projection: Projection| projection.shape(config).1;
        let head = self.weights.head()?.is_none_or(|head| ternary(&head).is_none());
        Ok(Projection::ALL.into_iter().all(|p| columns(p).is_multiple_of(block))
            && (head || config.hidden_size.is_multiple_of(block)))
    }

    /// The linear layer at that position (`None`: the head) with its rows in the order of the file.
    fn linear(&self, place: Option<(usize, Projection)>) -> Result<LinearSource> {
        match place {
            None => self.weights.head()?.ok_or_else(|| ModelError::Convert("the head disappeared".into())),
            Some((layer, projection)) => {
                let source = self.weights.linear(layer, projection)?;
                let heads = matches!(projection, Projection::Query | Projection::Key);
                let head_dim = self.weights.config().head_dim;
                if heads && self.family.interleaves_heads() { interleaved::apply(source, head_dim) } else { Ok(source) }
            }
        }
    }

    /// The scale that needs a separate tensor: one that the block type's f16 would round.
    fn separate_scale(&self, scales: &TernaryScales) -> Option<f32> {
        scales.one().filter(|scale| self.ternary != GgufType::I2_S && formats::f16_exact(*scale).is_none())
    }

    /// Heads take the type of the embedding; other dense layers keep theirs.
    fn dense_type(&self, dense: &DenseTensor, head: bool) -> BitNetDType {
        if head { self.embeddings } else { dense.dtype }
    }

    fn data(&self, source: &LinearSource, head: bool) -> Result<Vec<u8>> {
        let (codes, scales) = match &source.weight {
            WeightSource::Ternary { codes, scales } => (codes, scales),
            WeightSource::Dense(dense) => return encode(dense, self.dense_type(dense, head)),
        };
        let inside = if self.separate_scale(scales).is_some() { &1f32.into() } else { scales };
        Ok(match self.format {
            None => formats::i2_s::encode(codes, one_scale("a matrix", scales, "I2_S")?, I2sOrder::X86)?,
            Some(format) => format.encode(codes, inside)?,
        })
    }
}

fn gguf_type(dtype: BitNetDType) -> GgufType {
    GgufType::of(dtype).expect("matrices have a type of weights")
}

fn metadata(checkpoint: &Checkpoint, family: Family, file_type: u32) -> Result<Metadata> {
    let config = checkpoint.weights().config();
    let mut metadata = Metadata::default();
    let mut set = |key: &str, value: Value| {
        metadata.insert(key, value);
    };
    set("general.architecture", Value::String(family.name().into()));
    set("general.name", Value::String(checkpoint.name().into()));
    set("general.file_type", Value::U32(file_type));
    set("general.quantization_version", Value::U32(2));
    set(gguf_config::ACTIVATIONS, Value::String(config.activations.name().into()));
    shape(config, &mut |key, value| set(&format!("{}.{key}", family.name()), value))?;
    match checkpoint.source_tokenizer() {
        Some(tokenizer) => {
            let mut vocab = tokenizer?.to_gguf(config.vocab_size)?;
            vocab.bos = vocab.bos.or(config.bos);
            vocab.eos = vocab.eos.or(config.eos.first().copied());
            gguf_vocab::write(&vocab, &mut metadata);
        }
        None => {
            metadata.insert("tokenizer.ggml.model", Value::String("no_vocab".into()));
        }
    }
    Ok(metadata)
}

fn shape(config: &Config, set: &mut dyn FnMut(&str, Value)) -> Result<()> {
    let counts = [
        ("block_count", config.layers),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("context_length", config.max_positions),
        ("vocab_size", config.vocab_size),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
    ];
    for (key, count) in counts {
        let count = u32::try_from(count).map_err(|_| ModelError::Convert(format!("{key} is {count}")))?;
        set(key, Value::U32(count));
    }
    set("attention.layer_norm_rms_epsilon", Value::F32(config.norm_eps));
    set("rope.freq_base", Value::F32(config.rope.theta as f32));
    set("hidden_activation", Value::String(config.hidden_act.name().into()));
    if config.architecture == Architecture::MiniCpm {
        let Scales { embedding, residual, logits, .. } = config.block.scales;
        let scales = [("embedding_scale", embedding), ("residual_scale", residual), ("logit_scale", logits)];
        scales.into_iter().for_each(|(key, scale)| set(key, Value::F32(scale)));
    }
    let mut scaling = |kind: &str, factor: Option<f64>, original: Option<usize>, attention: f64| {
        set("rope.scaling.type", Value::String(kind.into()));
        factor.into_iter().for_each(|factor| set("rope.scaling.factor", Value::F32(factor as f32)));
        // Larger than any real context: kept within the type of the key.
        let original = original.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
        original.into_iter().for_each(|tokens| set("rope.scaling.original_context_length", Value::U32(tokens)));
        if attention != 1. {
            set("rope.scaling.attn_factor", Value::F32(attention as f32));
        }
    };
    match &config.rope.scaling {
        RopeScaling::Linear { factor } => scaling("linear", Some(*factor), None, 1.),
        RopeScaling::Yarn { factor, original, attention_factor, .. } => {
            // llama.cpp multiplies by its own.
            scaling("yarn", Some(*factor), Some(*original), attention_factor / yarn_attention(*factor, 1.));
        }
        RopeScaling::LongRope { original, attention_factor, .. } => {
            scaling("longrope", None, Some(*original), *attention_factor);
        }
        _ => {}
    }
    Ok(())
}
