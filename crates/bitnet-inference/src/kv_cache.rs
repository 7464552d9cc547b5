//! What the layers keep of all sequences: keys and values in pages, or states.

use crate::Result;
use crate::pages::Pages;
use bitnet_core::backend::{KvPages, KvPagesMut, TensorMut};
use bitnet_core::{BitNetDType, BitNetTensor, Device, TensorStorage};
use bitnet_model::Config;
use std::fmt;
use std::str::FromStr;

/// Tokens of a page.
pub(crate) const PAGE: usize = 64;
/// Pages that a cache has at first.
const FIRST: usize = 8;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// 32 bits, exact.
    #[default]
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 8 bits with a scale for each position of each head.
    Q8,
}

impl KvType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::BF16, Self::Q8];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8 => "q8",
        }
    }

    fn dtype(self) -> BitNetDType {
        match self {
            Self::F32 => BitNetDType::F32,
            Self::F16 => BitNetDType::F16,
            Self::BF16 => BitNetDType::BF16,
            Self::Q8 => BitNetDType::I8,
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KvType {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("{name:?} is not one of {}", known()))
    }
}

/// Keys and values of all layers in pages of [`PAGE`] tokens, which sequences share. Memory grows with the pages in use. Layers
/// of the gated delta rule have a state of each sequence instead.
#[derive(Debug)]
pub(crate) struct KvCache {
    device: Device,
    layers: Vec<LayerState>,
    pub(crate) pages: Pages,
    /// Places for the states of a sequence that nobody uses; where no layer keeps one, places are without meaning.
    free_states: Vec<u32>,
    /// Whether layers keep states, which cannot be shared or taken back.
    pub(crate) has_states: bool,
    /// Pages that there is memory for, page 0 included.
    capacity: usize,
    kind: KvType,
    kv_heads: usize,
    head_dim: usize,
    /// How often the memory moved: a recorded step refers to the old.
    pub(crate) moves: usize,
}

/// What a layer keeps.
#[derive(Debug)]
enum LayerState {
    Pages(Box<LayerPages>),
    /// `[states, taps - 1, channels]`, the last inputs of the convolution, and `[states, value_heads, key_dim, value_dim]`.
    Delta(Box<[BitNetTensor; 2]>),
}

/// See [`bitnet_core::backend::KvPages`].
#[derive(Debug)]
struct LayerPages {
    keys: BitNetTensor,
    values: BitNetTensor,
    scales: Option<[BitNetTensor; 2]>,
}

impl KvCache {
    /// A cache of at most `budget` pages, and the states of so many sequences.
    pub(crate) fn new(config: &Config, device: &Device, kind: KvType, budget: usize, states: usize) -> Result<Self> {
        let mut cache = Self {
            device: device.clone(),
            layers: Vec::new(),
            pages: Pages::new(PAGE, budget),
            free_states: (0..states as u32).rev().collect(),
            has_states: config.block.delta.is_some(),
            capacity: 0,
            kind,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            moves: 0,
        };
        let first = budget.min(FIRST);
        let layer = |index| -> Result<LayerState> {
            Ok(match config.block.delta(index) {
                None => LayerState::Pages(Box::new(cache.allocate(first + 1)?)),
                Some(delta) => {
                    let dims = [states, delta.value_heads, delta.key_dim, delta.value_dim];
                    let inputs = [states, delta.taps - 1, delta.channels()];
                    let tensor = |dims: &[usize]| BitNetTensor::empty(dims, BitNetDType::F32, device);
                    LayerState::Delta(Box::new([tensor(&inputs)?, tensor(&dims)?]))
                }
            })
        };
        cache.layers = (0..config.layers).map(layer).collect::<Result<_>>()?;
        cache.capacity = first + 1;
        cache.pages.reserve(first);
        Ok(cache)
    }

    /// Bytes of a page, of all layers.
    pub(crate) fn page_bytes(&self) -> usize {
        let scale = if self.kind == KvType::Q8 { size_of::<f32>() } else { 0 };
        let layers = self.layers.iter().filter(|layer| matches!(layer, LayerState::Pages(_))).count();
        2 * layers * PAGE * self.kv_heads * (self.head_dim * self.kind.dtype().size() + scale)
    }

    fn allocate(&self, pages: usize) -> Result<LayerPages> {
        let (heads, dim, dtype) = (self.kv_heads, self.head_dim, self.kind.dtype());
        let tensor = |dims: &[usize], dtype| -> Result<BitNetTensor> {
            let mut tensor = BitNetTensor::empty(dims, dtype, &self.device)?;
            // Committed as pages are written.
            if let TensorStorage::Cpu(memory) = tensor.as_mut()?.storage {
                memory.advise_huge_pages(false);
            }
            Ok(tensor)
        };
        let scales = || -> Result<[BitNetTensor; 2]> {
            let dims = [pages, heads, PAGE];
            Ok([tensor(&dims, BitNetDType::F32)?, tensor(&dims, BitNetDType::F32)?])
        };
        Ok(LayerPages {
            keys: tensor(&[pages, heads, dim, PAGE], dtype)?,
            values: tensor(&[pages, heads, PAGE, dim], dtype)?,
            scales: (self.kind == KvType::Q8).then(scales).transpose()?,
        })
    }

    /// A page that nobody uses; `None` when there is none.
    pub(crate) fn page(&mut self) -> Result<Option<u32>> {
        let Some(page) = self.pages.allocate() else { return Ok(None) };
        if page as usize >= self.capacity {
            // Twice as much: each page is copied once on average.
            let pages = (2 * page as usize).min(self.pages.budget());
            if let Err(error) = self.grow(pages + 1) {
                self.pages.release(page);
                return Err(error);
            }
        }
        Ok(Some(page))
    }

    fn grow(&mut self, capacity: usize) -> Result<()> {
        self.pages.reserve(capacity - 1);
        for index in 0..self.layers.len() {
            let LayerState::Pages(old) = &self.layers[index] else { continue };
            let mut new = self.allocate(capacity)?;
            let mut pairs = vec![(&old.keys, &mut new.keys), (&old.values, &mut new.values)];
            if let (Some(old), Some(new)) = (&old.scales, &mut new.scales) {
                pairs.extend(old.iter().zip(new));
            }
            for (old, new) in pairs {
                let kept = old.dims()[0].min(capacity);
                self.device.copy(old.as_ref().narrow(0, 0, kept)?, new.as_mut()?.narrow(0, 0, kept)?)?;
            }
            self.layers[index] = LayerState::Pages(Box::new(new));
        }
        self.capacity = capacity;
        self.moves += 1;
        Ok(())
    }

    /// A place for the states of a sequence; `None` when there is none.
    pub(crate) fn state(&mut self) -> Option<u32> {
        self.free_states.pop()
    }

    /// Gives a place for states back.
    pub(crate) fn release_state(&mut self, state: u32) {
        self.free_states.push(state);
    }

    /// Whether there is a place for states.
    pub(crate) fn has_free_state(&self) -> bool {
        !self.free_states.is_empty()
    }

    fn pages_of(&self, index: usize) -> &LayerPages {
        match &self.layers[index] {
            LayerState::Pages(pages) => pages,
            LayerState::Delta(_) => unreachable!("layer {index} does not attend"),
        }
    }

    /// The inputs of the convolution and the states of a layer of the gated delta rule.
    pub(crate) fn delta_mut(&mut self, index: usize) -> Result<(TensorMut<'_>, TensorMut<'_>)> {
        match &mut self.layers[index] {
            LayerState::Delta(tensors) => {
                let [conv, state] = &mut **tensors;
                Ok((conv.as_mut()?, state.as_mut()?))
            }
            LayerState::Pages(_) => unreachable!("layer {index} attends"),
        }
    }

    pub(crate) fn layer(&self, index: usize) -> KvPages<'_> {
        let LayerPages { keys, values, scales } = self.pages_of(index);
        let scales = scales.as_ref().map(|[k, v]| [k.as_ref(), v.as_ref()]);
        KvPages { keys: keys.as_ref(), values: values.as_ref(), scales }
    }

    pub(crate) fn layer_mut(&mut self, index: usize) -> Result<KvPagesMut<'_>> {
        let LayerState::Pages(pages) = &mut self.layers[index] else { unreachable!("layer {index} does not attend") };
        let LayerPages { keys, values, scales } = &mut **pages;
        let scales = match scales {
            Some([k, v]) => Some([k.as_mut()?, v.as_mut()?]),
            None => None,
        };
        Ok(KvPagesMut { keys: keys.as_mut()?, values: values.as_mut()?, scales })
    }
}
