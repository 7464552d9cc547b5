//! Batches: to train on without end, and to evaluate on, always the same.

use super::IGNORED;
use super::order::{below, number, shuffled};
use super::rows::{Rows, Segment};
use super::set::TokenSet;
use crate::config::{Order, Packing};
use crate::error::{Result, TrainingError};
use bitnet_core::{BitNetDType, BitNetTensor, Device};
use serde::{Deserialize, Serialize};

/// Rows of tokens and what follows each.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Tokens, i64 `[batch, context]` (u32 on a device without it); 0 where a row is padded.
    pub inputs: BitNetTensor,
    /// The tokens that follow, i64 `[batch, context]` (i32 on a device without it); [`IGNORED`] where a row is padded, or in
    /// the questions of a chat.
    pub targets: BitNetTensor,
    /// Where documents share a row: the place of each token in its document, of the dtype of `inputs`.
    pub positions: Option<BitNetTensor>,
    /// Where documents share a row: which of them a token is of, of the dtype of `targets`; -1 where it is padded.
    pub segments: Option<BitNetTensor>,
    /// Targets that count.
    pub counted: usize,
}

/// What rows a loader makes, and in which order.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderOptions {
    /// Tokens of a row.
    pub context: usize,
    /// Rows of a batch.
    pub batch: usize,
    /// How texts are laid out in rows.
    pub packing: Packing,
    /// In which order rows come.
    pub order: Order,
    /// Fixes the order.
    pub seed: u64,
}

/// How far a loader has come, and in what. A loader of the same tokens, context, order and seed goes on from it with the
/// batches that would have come; the batch size may be another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataPosition {
    /// Rows given.
    pub rows: u64,
    /// Tokens there are.
    pub tokens: u64,
    /// How often rows come from each source, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<f64>,
    /// Tokens of a row.
    pub context: u64,
    /// The seed.
    pub seed: u64,
    /// How texts are laid out in rows.
    pub packing: Packing,
    /// In which order rows come.
    pub order: Order,
}

/// Batches to train on. Each is a function of the seed and of the rows given before.
#[derive(Debug)]
pub struct DataLoader {
    sources: Vec<Source>,
    options: LoaderOptions,
    given: u64,
    device: Device,
}

/// Tokens that rows are drawn from.
#[derive(Debug)]
struct Source {
    tokens: TokenSet,
    rows: Rows,
    weight: f64,
    /// Rows given from it.
    given: u64,
}

impl DataLoader {
    /// Starts at the first row.
    ///
    /// # Errors
    /// When the tokens do not make a row, context or batch are 0, whole documents are to start at random places, chats are to
    /// be cut anywhere, or a file is damaged.
    pub fn new(tokens: TokenSet, options: LoaderOptions, device: &Device) -> Result<Self> {
        Self::mixed(vec![(tokens, 1.0)], options, device)
    }

    /// Rows of several sets, each row drawn from one of them at random, as often as its weight says beside the others'.
    ///
    /// # Errors
    /// As [`new`](Self::new); when there is no set, or a weight is not a positive number.
    pub fn mixed(sets: Vec<(TokenSet, f64)>, options: LoaderOptions, device: &Device) -> Result<Self> {
        check(options.context, options.batch)?;
        if options.packing != Packing::Stream && options.order == Order::Random {
            let problem = "rows of whole documents cannot start at random places: shuffle them";
            return Err(TrainingError::Invalid(problem.into()));
        }
        if sets.is_empty() || sets.iter().any(|(_, weight)| !(weight.is_finite() && *weight > 0.0)) {
            return Err(TrainingError::Invalid("data to mix needs positive weights, one for each".into()));
        }
        let source = |(tokens, weight): (TokenSet, f64)| -> Result<Source> {
            let rows = Rows::new(&tokens, options.context, options.packing, false)?;
            Ok(Source { tokens, rows, weight, given: 0 })
        };
        let sources = sets.into_iter().map(source).collect::<Result<_>>()?;
        Ok(Self { sources, options, given: 0, device: device.clone() })
    }

    /// The next batch.
    ///
    /// # Errors
    /// When a file is damaged, or memory is short. The position is then where it was.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let LoaderOptions { context, batch, packing, order, seed } = self.options;
        let mut builder = Builder::new(batch, context, packing);
        let mut given: Vec<u64> = self.sources.iter().map(|source| source.given).collect();
        for place in (self.given..).take(batch) {
            let of = self.source(place);
            let Source { tokens, rows, .. } = &self.sources[of];
            // Another order for each source, that of a single one by the seed as it is.
            let seed = if of == 0 { seed } else { number(seed, of as u64) };
            let count = rows.count();
            let row = (given[of] % count as u64) as usize;
            let epoch = given[of] / count as u64;
            match order {
                Order::Random => {
                    let start = below(seed, given[of], tokens.len() - context);
                    builder.add(tokens, Segment { start, len: context })?;
                }
                Order::Shuffled => builder.row(rows, shuffled(number(seed, epoch), row, count), tokens)?,
                Order::Sequential => builder.row(rows, row, tokens)?,
            }
            builder.end_row();
            given[of] += 1;
        }
        let batch = builder.finish(&self.device)?;
        self.given += self.options.batch as u64;
        self.sources.iter_mut().zip(given).for_each(|(source, given)| source.given = given);
        Ok(batch)
    }

    /// The source of the row at `place`.
    fn source(&self, place: u64) -> usize {
        if self.sources.len() == 1 {
            return 0;
        }
        const RESOLUTION: usize = 1 << 30;
        let all: f64 = self.sources.iter().map(|source| source.weight).sum();
        let drawn = below(!self.options.seed, place, RESOLUTION) as f64 / RESOLUTION as f64 * all;
        let mut end = 0.0;
        let found = self.sources.iter().position(|source| {
            end += source.weight;
            drawn < end
        });
        found.unwrap_or(self.sources.len() - 1)
    }

    /// Rows of an epoch of all sources; of a stream with random starts, as many as would cover it.
    pub fn rows(&self) -> usize {
        self.sources.iter().map(|source| source.rows.count()).sum()
    }

    /// Epochs passed, with a fraction; of several sources, as many rows as they have together.
    pub fn epochs(&self) -> f64 {
        self.given as f64 / self.rows() as f64
    }

    /// What to keep so that another loader can go on.
    pub fn position(&self) -> DataPosition {
        let weights = self.sources.iter().map(|source| source.weight);
        DataPosition {
            rows: self.given,
            tokens: self.tokens(),
            weights: if self.sources.len() == 1 { Vec::new() } else { weights.collect() },
            context: self.options.context as u64,
            seed: self.options.seed,
            packing: self.options.packing,
            order: self.options.order,
        }
    }

    fn tokens(&self) -> u64 {
        self.sources.iter().map(|source| source.tokens.len() as u64).sum()
    }

    /// Goes on from there.
    ///
    /// # Errors
    /// When the position is of other data, or of another context, order or seed; says which.
    pub fn restore(&mut self, position: &DataPosition) -> Result<()> {
        let own = self.position();
        if own != (DataPosition { rows: own.rows, ..position.clone() }) {
            if own.weights != position.weights {
                let problem = format!(
                    "the run was interrupted with data.weights {:?}, but these are {:?}: go on with those it began with",
                    position.weights, own.weights
                );
                return Err(TrainingError::data(self.sources[0].tokens.path(), problem));
            }
            let problem = format!(
                "the run was interrupted in {} tokens, rows of {} ({:?}, {:?}, seed {}), but these are {} tokens, rows of \
                 {} ({:?}, {:?}, seed {}): go on with the data and the settings that it began with",
                position.tokens,
                position.context,
                position.packing,
                position.order,
                position.seed,
                own.tokens,
                own.context,
                own.packing,
                own.order,
                own.seed
            );
            return Err(TrainingError::data(self.sources[0].tokens.path(), problem));
        }
        self.given = position.rows;
        let mut given = vec![0; self.sources.len()];
        (0..position.rows).for_each(|place| given[self.source(place)] += 1);
        self.sources.iter_mut().zip(given).for_each(|(source, given)| source.given = given);
        Ok(())
    }
}

/// Batches to evaluate on: the rows of the data in their order, the last ones padded or fewer, each token once.
#[derive(Debug)]
pub struct Evaluation {
    tokens: TokenSet,
    rows: Rows,
    context: usize,
    batch: usize,
    packing: Packing,
    /// Of how many, how many are taken.
    most: usize,
    device: Device,
}

impl Evaluation {
    /// At most `most` batches, evenly spread over the data; all where it is 0.
    ///
    /// # Errors
    /// As [`DataLoader::new`].
    pub fn new(
        tokens: TokenSet,
        context: usize,
        batch: usize,
        packing: Packing,
        most: usize,
        device: &Device,
    ) -> Result<Self> {
        check(context, batch)?;
        let rows = Rows::new(&tokens, context, packing, true)?;
        Ok(Self { tokens, rows, context, batch, packing, most, device: device.clone() })
    }

    /// Number of batches.
    pub fn len(&self) -> usize {
        let all = self.rows.count().div_ceil(self.batch);
        if self.most == 0 { all } else { all.min(self.most) }
    }

    /// Never: there is at least one row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The batches. Means over all of them are to be weighted by [`Batch::counted`].
    pub fn batches(&self) -> impl Iterator<Item = Result<Batch>> {
        let all = self.rows.count().div_ceil(self.batch);
        let len = self.len();
        (0..len).map(move |i| self.get(i * all / len))
    }

    fn get(&self, index: usize) -> Result<Batch> {
        let start = index * self.batch;
        let end = (start + self.batch).min(self.rows.count());
        let mut builder = Builder::new(end - start, self.context, self.packing);
        for row in start..end {
            builder.row(&self.rows, row, &self.tokens)?;
            builder.end_row();
        }
        builder.finish(&self.device)
    }
}

fn check(context: usize, batch: usize) -> Result<()> {
    match context == 0 || batch == 0 || context.checked_mul(batch).is_none() {
        true => Err(TrainingError::Invalid(format!("batches of {batch} rows of {context} tokens cannot be made"))),
        false => Ok(()),
    }
}

/// A batch that is being filled.
struct Builder {
    context: usize,
    dims: [usize; 2],
    inputs: Vec<i64>,
    targets: Vec<i64>,
    /// Positions and segments, of packed rows.
    places: Option<(Vec<i64>, Vec<i64>)>,
    /// Of the row that is being filled.
    documents: i64,
}

impl Builder {
    fn new(batch: usize, context: usize, packing: Packing) -> Self {
        let several = matches!(packing, Packing::Packed | Packing::BestFit);
        let places = several.then(|| (Vec::new(), Vec::new()));
        Self { context, dims: [batch, context], inputs: Vec::new(), targets: Vec::new(), places, documents: 0 }
    }

    fn row(&mut self, rows: &Rows, row: usize, tokens: &TokenSet) -> Result<()> {
        rows.segments(row, tokens, self.context, |segment| self.add(tokens, segment))
    }

    fn add(&mut self, tokens: &TokenSet, segment: Segment) -> Result<()> {
        let Segment { start, len } = segment;
        tokens.read(start..start + len, &mut self.inputs)?;
        tokens.read_targets(start + 1..start + len + 1, &mut self.targets)?;
        if let Some((positions, segments)) = &mut self.places {
            positions.extend(0..segment.len as i64);
            segments.extend(std::iter::repeat_n(self.documents, segment.len));
        }
        self.documents += 1;
        Ok(())
    }

    /// Pads the row.
    fn end_row(&mut self) {
        let end = self.inputs.len().next_multiple_of(self.context);
        self.inputs.resize(end, 0);
        self.targets.resize(end, IGNORED);
        if let Some((positions, segments)) = &mut self.places {
            positions.resize(end, 0);
            segments.resize(end, -1);
        }
        self.documents = 0;
    }

    fn finish(self, device: &Device) -> Result<Batch> {
        let counted = self.targets.iter().filter(|&&t| t != IGNORED).count();
        let tensor = |data: Vec<i64>, narrow| match device.has(BitNetDType::I64) {
            true => BitNetTensor::from_vec(data, &self.dims, device),
            false => BitNetTensor::from_vec(data, &self.dims, &Device::cpu())?.to_dtype(narrow)?.to_device(device),
        };
        // Indices as a device reads them; what may be negative.
        let index = |data| tensor(data, BitNetDType::U32);
        let signed = |data| tensor(data, BitNetDType::I32);
        let (positions, segments) = match self.places {
            Some((positions, segments)) => (Some(index(positions)?), Some(signed(segments)?)),
            None => (None, None),
        };
        Ok(Batch { inputs: index(self.inputs)?, targets: signed(self.targets)?, positions, segments, counted })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
