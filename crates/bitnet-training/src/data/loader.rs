//! Batches: to train on without end, and to evaluate on, always the same.

use super::IGNORED;
use super::order::{below, number, shuffled};
use super::rows::{Rows, Segment};
use super::set::TokenSet;
use crate::config::{Order, Packing};
use crate::error::{Result, TrainingError};
use bitnet_core::{BitNetTensor, Device};
use serde::{Deserialize, Serialize};

/// Rows of tokens and what follows each.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Tokens, i64 `[batch, context]`; 0 where a row is padded.
    pub inputs: BitNetTensor,
    /// The tokens that follow, i64 `[batch, context]`; [`IGNORED`] where a row is padded.
    pub targets: BitNetTensor,
    /// Of packed documents: the place of each token in its document, i64 `[batch, context]`.
    pub positions: Option<BitNetTensor>,
    /// Of packed documents: which of the row's documents a token is of, i64 `[batch, context]`; -1 where it is padded.
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
    tokens: TokenSet,
    options: LoaderOptions,
    rows: Rows,
    given: u64,
    device: Device,
}

impl DataLoader {
    /// Starts at the first row.
    ///
    /// # Errors
    /// When the tokens do not make a row, context or batch are 0, whole documents are to start at random places, or a
    /// file is damaged.
    pub fn new(tokens: TokenSet, options: LoaderOptions, device: &Device) -> Result<Self> {
        check(options.context, options.batch)?;
        if options.packing != Packing::Stream && options.order == Order::Random {
            let problem = "rows of whole documents cannot start at random places: shuffle them";
            return Err(TrainingError::Invalid(problem.into()));
        }
        let rows = Rows::new(&tokens, options.context, options.packing, false)?;
        Ok(Self { tokens, options, rows, given: 0, device: device.clone() })
    }

    /// The next batch.
    ///
    /// # Errors
    /// When a file is damaged, or memory is short. The position is then where it was.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let LoaderOptions { context, batch, packing, order, seed } = self.options;
        let mut builder = Builder::new(batch, context, packing);
        let count = self.rows.count();
        for given in (self.given..).take(batch) {
            let row = (given % count as u64) as usize;
            let epoch = given / count as u64;
            match order {
                Order::Random => {
                    let start = below(seed, given, self.tokens.len() - context);
                    builder.add(&self.tokens, Segment { start, len: context })?;
                }
                Order::Shuffled => builder.row(&self.rows, shuffled(number(seed, epoch), row, count), &self.tokens)?,
                Order::Sequential => builder.row(&self.rows, row, &self.tokens)?,
            }
            builder.end_row();
        }
        let batch = builder.finish(&self.device)?;
        self.given += self.options.batch as u64;
        Ok(batch)
    }

    /// Rows of an epoch; of a stream with random starts, as many as would cover it.
    pub fn rows(&self) -> usize {
        self.rows.count()
    }

    /// Epochs passed, with a fraction.
    pub fn epochs(&self) -> f64 {
        self.given as f64 / self.rows.count() as f64
    }

    /// What to keep so that another loader can go on.
    pub fn position(&self) -> DataPosition {
        DataPosition {
            rows: self.given,
            tokens: self.tokens.len() as u64,
            context: self.options.context as u64,
            seed: self.options.seed,
            packing: self.options.packing,
            order: self.options.order,
        }
    }

    /// Goes on from there.
    ///
    /// # Errors
    /// When the position is of other data, or of another context, order or seed; says which.
    pub fn restore(&mut self, position: &DataPosition) -> Result<()> {
        let own = self.position();
        if own != (DataPosition { rows: own.rows, ..position.clone() }) {
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
            return Err(TrainingError::data(self.tokens.path(), problem));
        }
        self.given = position.rows;
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
    /// A segment and what follows it.
    read: Vec<i64>,
}

impl Builder {
    fn new(batch: usize, context: usize, packing: Packing) -> Self {
        let places = (packing == Packing::Packed).then(|| (Vec::new(), Vec::new()));
        let (inputs, targets, read) = (Vec::new(), Vec::new(), Vec::new());
        Self { context, dims: [batch, context], inputs, targets, places, documents: 0, read }
    }

    fn row(&mut self, rows: &Rows, row: usize, tokens: &TokenSet) -> Result<()> {
        rows.segments(row, tokens, self.context, |segment| self.add(tokens, segment))
    }

    fn add(&mut self, tokens: &TokenSet, segment: Segment) -> Result<()> {
        self.read.clear();
        tokens.read(segment.start..segment.start + segment.len + 1, &mut self.read)?;
        self.inputs.extend_from_slice(&self.read[..segment.len]);
        self.targets.extend_from_slice(&self.read[1..]);
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
        let tensor = |data: Vec<i64>| BitNetTensor::from_vec(data, &self.dims, device);
        let (positions, segments) = match self.places {
            Some((positions, segments)) => (Some(tensor(positions)?), Some(tensor(segments)?)),
            None => (None, None),
        };
        Ok(Batch { inputs: tensor(self.inputs)?, targets: tensor(self.targets)?, positions, segments, counted })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
