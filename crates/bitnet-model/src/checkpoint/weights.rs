//! The parts of a model, independent of the file format.

use super::adapter::{LowRank, Place};
use crate::config::{Block, DeltaNet, QkNorm};
use crate::{Config, ModelError, Result};
use bitnet_core::{BitNetDType, BitNetTensor, Device, MappedFile};
use bitnet_quant::{TernaryCodes, TernaryScales};
use std::ops::Range;
use std::sync::Arc;

/// The linear layers of a decoder block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Projection {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
    /// Of the gate of attention.
    AttentionGate,
    /// Queries, keys and values of a layer of the gated delta rule.
    DeltaQkv,
    /// Its gate, of the width of the values.
    DeltaGate,
    /// What its decay depends on, a number for each head of values.
    DeltaA,
    /// How much of a value it takes, a number for each head of values.
    DeltaB,
    DeltaOutput,
}

impl Projection {
    /// Those of a layer of Llama, in the order of computation.
    pub const ALL: [Self; 7] = [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// Those of layer `layer`, in the order of computation.
    pub fn of_layer(block: &Block, layer: usize) -> impl Iterator<Item = Self> {
        use Projection::*;
        let mixer: &[Self] = match (block.delta(layer), block.attention_gate) {
            (Some(_), _) => &[DeltaQkv, DeltaGate, DeltaA, DeltaB, DeltaOutput],
            (None, true) => &[Query, AttentionGate, Key, Value, Output],
            (None, false) => &[Query, Key, Value, Output],
        };
        mixer.iter().chain(&[Gate, Up, Down]).copied()
    }

    /// Name of its module in layer `layer` of a Hugging Face checkpoint.
    pub fn module(self, layer: usize) -> String {
        super::hf::module(layer, self)
    }

    /// Outputs and inputs in a model of this configuration.
    pub fn shape(self, config: &Config) -> (usize, usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        match self {
            Self::Query | Self::AttentionGate => (config.query_size(), hidden),
            Self::Key | Self::Value => (config.kv_size(), hidden),
            Self::Output => (hidden, config.query_size()),
            Self::Gate | Self::Up => (inner, hidden),
            Self::Down => (hidden, inner),
            _ => {
                let of = |size: fn(&DeltaNet) -> usize| config.block.delta.as_ref().map_or(0, size);
                match self {
                    Self::DeltaQkv => (of(DeltaNet::channels), hidden),
                    Self::DeltaGate => (of(DeltaNet::values), hidden),
                    Self::DeltaOutput => (hidden, of(DeltaNet::values)),
                    _ => (of(|delta| delta.value_heads), hidden),
                }
            }
        }
    }
}

/// The norms of a model; the number is that of the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Before attention.
    Attention(usize),
    /// Of the queries.
    Query(usize),
    /// Of the keys.
    Key(usize),
    /// Inside attention, before its output projection.
    AttentionInner(usize),
    /// Of the heads of values of a layer of the gated delta rule, before their gate.
    Delta(usize),
    /// After attention, before it is added to the residual stream.
    AttentionAfter(usize),
    /// Before the feed-forward part.
    FeedForward(usize),
    /// Inside the feed-forward part, before its down projection.
    FeedForwardInner(usize),
    /// After the feed-forward part, before it is added to the residual stream.
    FeedForwardAfter(usize),
    /// After the last layer.
    Output,
}

impl Norm {
    /// The norms of layer `layer` that the description of its block asks for, in the order of computation.
    pub fn of_layer(block: &Block, layer: usize) -> impl Iterator<Item = Self> {
        let (before, after) = (block.norms.before(), block.norms.after());
        let delta = block.delta(layer).is_some();
        let (of_heads, inner) = (block.qk_norm.is_some() && !delta, block.inner_norms && !delta);
        [
            (before, Self::Attention(layer)),
            (of_heads, Self::Query(layer)),
            (of_heads, Self::Key(layer)),
            (inner, Self::AttentionInner(layer)),
            (delta, Self::Delta(layer)),
            (after, Self::AttentionAfter(layer)),
            (before, Self::FeedForward(layer)),
            (block.inner_norms, Self::FeedForwardInner(layer)),
            (after, Self::FeedForwardAfter(layer)),
        ]
        .into_iter()
        .filter_map(|(asked, norm)| asked.then_some(norm))
    }

    /// All norms of a model of this configuration, the last one first.
    pub fn all(config: &Config) -> impl Iterator<Item = Self> {
        [Self::Output].into_iter().chain((0..config.layers).flat_map(|layer| Self::of_layer(&config.block, layer)))
    }

    /// Weights in a model of this configuration.
    pub fn len(self, config: &Config) -> usize {
        let by_head = config.block.qk_norm != Some(QkNorm::All);
        match self {
            Self::FeedForwardInner(_) => config.intermediate_size,
            Self::Delta(_) => config.block.delta.as_ref().map_or(0, |delta| delta.value_dim),
            Self::Query(_) | Self::Key(_) if by_head => config.head_dim,
            Self::Query(_) => config.query_size(),
            Self::Key(_) => config.kv_size(),
            _ => config.hidden_size,
        }
    }
}

/// A linear layer of a checkpoint.
#[derive(Debug)]
pub struct LinearSource {
    /// Weights `[outputs, inputs]`.
    pub weight: WeightSource,
    /// Bias.
    pub bias: Option<Vec<f32>>,
    /// The layer's own norm of its inputs: weights and epsilon.
    pub inner_norm: Option<(Vec<f32>, f32)>,
}

impl LinearSource {
    /// The same layer with row `from(r)` as row `r`.
    pub fn reorder_rows(self, from: impl Fn(usize) -> usize) -> Result<Self> {
        let rows = match &self.weight {
            WeightSource::Ternary { codes, .. } => codes.rows(),
            WeightSource::Dense(dense) => dense.rows,
        };
        self.take_rows(rows, from)
    }

    /// A layer of `rows` outputs, row `from(r)` of this one as row `r`.
    pub fn take_rows(self, rows: usize, from: impl Fn(usize) -> usize) -> Result<Self> {
        let weight = match self.weight {
            WeightSource::Ternary { codes, scales } => {
                let cols = codes.cols();
                let bytes = (0..rows).flat_map(|r| codes.row(from(r))).copied().collect();
                let scales = scales.take_rows(codes.rows(), rows, &from);
                WeightSource::Ternary { codes: TernaryCodes::new(rows, cols, bytes)?, scales }
            }
            WeightSource::Dense(dense) => WeightSource::Dense(dense.take_rows((0..rows).map(&from))?),
        };
        let bias = self.bias.map(|b| (0..rows).map(|r| b[from(r)]).collect());
        Ok(Self { weight, bias, ..self })
    }
}

/// What a layer of the gated delta rule has beside linear layers and its norm.
#[derive(Debug)]
pub struct DeltaSource {
    /// Of the convolution, `[taps, channels]`.
    pub conv: Vec<f32>,
    /// `-exp(A_log)`, `[value_heads]`.
    pub decay: Vec<f32>,
    /// `[value_heads]`
    pub bias: Vec<f32>,
}

/// The weights of a linear layer.
#[derive(Debug)]
pub enum WeightSource {
    /// Ternary: the layer quantizes its inputs to 8 bits.
    Ternary {
        /// -1, 0, +1.
        codes: TernaryCodes,
        /// The scale of every weight, row, or group of columns.
        scales: TernaryScales,
    },
    /// Of any other type: the layer computes in floating point.
    Dense(DenseTensor),
}

/// A matrix in the bytes of a mapped file, or in owned bytes.
#[derive(Debug, Clone)]
pub struct DenseTensor {
    /// Element type.
    pub dtype: BitNetDType,
    /// Outputs, or tokens of an embedding.
    pub rows: usize,
    /// Inputs, or width of an embedding.
    pub cols: usize,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    Mapped(Arc<MappedFile>, Range<usize>),
    Owned(Arc<Vec<u8>>),
}

impl DenseTensor {
    /// Bytes `range` of a mapped file; an error if they do not hold such a matrix.
    pub fn mapped(
        name: &str,
        file: Arc<MappedFile>,
        range: Range<usize>,
        dtype: BitNetDType,
        rows: usize,
        cols: usize,
    ) -> Result<Self> {
        check(name, file.get(range.clone()).map(<[u8]>::len), dtype, rows, cols)?;
        Ok(Self { dtype, rows, cols, data: Data::Mapped(file, range) })
    }

    /// From owned bytes; an error if they do not hold such a matrix.
    pub fn owned(name: &str, bytes: Vec<u8>, dtype: BitNetDType, rows: usize, cols: usize) -> Result<Self> {
        check(name, Some(bytes.len()), dtype, rows, cols)?;
        Ok(Self { dtype, rows, cols, data: Data::Owned(Arc::new(bytes)) })
    }

    /// The bytes, row after row.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Mapped(file, range) => &file[range.clone()],
            Data::Owned(bytes) => bytes,
        }
    }

    /// The values of one row.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let len = self.dtype.row_bytes(self.cols);
        let kind = self.dtype.weight_type().expect("checked when made");
        bitnet_kernels::blocks::dequantize_row(kind, &self.bytes()[row * len..][..len], out);
    }

    /// All values in row-major order.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.; self.rows * self.cols];
        for (row, out) in out.chunks_exact_mut(self.cols).enumerate() {
            self.row(row, out);
        }
        out
    }

    /// As a tensor on a device; on the CPU a mapped file is used without a copy.
    pub fn to_tensor(&self, device: &Device) -> Result<BitNetTensor> {
        let dims = [self.rows, self.cols];
        Ok(match &self.data {
            Data::Mapped(file, range) => BitNetTensor::from_mapped(file, range.clone(), &dims, self.dtype, device)?,
            Data::Owned(bytes) => BitNetTensor::from_bytes(bytes, &dims, self.dtype, device)?,
        })
    }

    /// The matrix with row `order[i]` as row `i`.
    pub fn take_rows(&self, order: impl ExactSizeIterator<Item = usize>) -> Result<Self> {
        let (len, rows) = (self.dtype.row_bytes(self.cols), order.len());
        let bytes = order.flat_map(|row| &self.bytes()[row * len..(row + 1) * len]).copied().collect();
        Self::owned("reordered", bytes, self.dtype, rows, self.cols)
    }
}

fn check(name: &str, len: Option<usize>, dtype: BitNetDType, rows: usize, cols: usize) -> Result<()> {
    let kind = dtype
        .weight_type()
        .ok_or_else(|| ModelError::tensor(name, format!("is {dtype}, which is not a type of weights")))?;
    let row = kind
        .row_bytes(cols)
        .ok_or_else(|| ModelError::tensor(name, format!("rows of {cols} are not whole blocks of {dtype}")))?;
    let needed = row.checked_mul(rows);
    if len.is_none() || len != needed || rows == 0 || cols == 0 {
        let problem = format!("{rows} x {cols} of {dtype} do not fit the {} bytes it has", len.unwrap_or(0));
        return Err(ModelError::tensor(name, problem));
    }
    Ok(())
}

/// A source of weights: a checkpoint, or random weights for a benchmark. Layers are read one at a time, so that the
/// model is never in memory twice.
pub trait Weights: Send + Sync {
    /// The configuration.
    fn config(&self) -> &Config;
    /// Embedding `[vocab, hidden]`.
    fn embedding(&self) -> Result<DenseTensor>;
    /// Output head `[vocab, hidden]`; `None`: the embedding.
    fn head(&self) -> Result<Option<LinearSource>>;
    /// Weights of a norm.
    fn norm(&self, norm: Norm) -> Result<Vec<f32>>;
    /// The router `[experts, hidden]` of block `layer`, whose feed-forward projections are those of all experts, one after another.
    fn router(&self, layer: usize) -> Result<DenseTensor> {
        Err(ModelError::Config(format!("layer {layer} has no experts")))
    }
    /// A linear layer of block `layer`; the rows of query and key in the order of [`Block::row`].
    fn linear(&self, layer: usize, projection: Projection) -> Result<LinearSource>;
    /// What an adapter adds to a linear layer as the model runs.
    fn adapter(&self, _place: Place) -> Option<LowRank> {
        None
    }
    /// The rest of a layer of the gated delta rule.
    fn delta(&self, layer: usize) -> Result<DeltaSource> {
        Err(ModelError::Config(format!("layer {layer} has no weights of the gated delta rule here")))
    }
    /// Releases the mapped pages of block `layer`, once its weights have been copied.
    fn release(&self, _layer: usize) {}
}
