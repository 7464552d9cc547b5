//! How the tokens of a step are chosen: the operands of `Op::Sample`.

use crate::batch::Mirrored;
use crate::{Result, Sampler};
use bitnet_core::Device;
use bitnet_core::backend::{SampleRow, SampleRows};

/// A row for each wanted row of a step, filled on the host and written to the device.
#[derive(Debug)]
pub(crate) struct Samples {
    vocab: usize,
    rows: Mirrored<f32>,
    /// `[rows, width]`, with `edits` `[rows, width, 4]`.
    edited: Mirrored<u32>,
    edits: Mirrored<f32>,
    /// `[rows, words]`
    mask: Mirrored<u32>,
    /// Edits of all rows, one after the other, and where those of each begin.
    changes: Vec<(u32, [f32; 4])>,
    starts: Vec<usize>,
    width: usize,
    masked: bool,
    probabilities: bool,
}

impl Samples {
    pub(crate) fn new(rows: usize, vocab: usize, device: &Device) -> Result<Self> {
        Ok(Self {
            vocab,
            rows: Mirrored::new(rows * SampleRow::LEN, device)?,
            edited: Mirrored::new(rows, device)?,
            edits: Mirrored::new(4 * rows, device)?,
            mask: Mirrored::new(0, device)?,
            changes: Vec::new(),
            starts: Vec::with_capacity(rows),
            width: 0,
            masked: false,
            probabilities: false,
        })
    }

    pub(crate) fn clear(&mut self) {
        self.rows.host.clear();
        self.mask.host.clear();
        self.changes.clear();
        self.starts.clear();
        (self.width, self.masked, self.probabilities) = (0, false, false);
    }

    /// Adds the row of a sequence; `allowed` as in [`Sampler::sample_allowed`].
    pub(crate) fn push(&mut self, sampler: &mut Sampler, allowed: Option<&[u32]>) {
        self.rows.host.extend(sampler.row().to_array());
        self.probabilities |= sampler.needs_probability();
        let (tokens, values) = sampler.edits();
        self.starts.push(self.changes.len());
        self.changes.extend(tokens.iter().copied().zip(values.iter().copied()));
        // In powers of two, so that a recorded step serves for a while.
        self.width = self.width.max(if tokens.is_empty() { 0 } else { tokens.len().next_power_of_two() });
        let words = self.vocab.div_ceil(32);
        if let Some(allowed) = allowed {
            self.masked = true;
            // The rows before, which have none.
            self.mask.host.resize(words * (self.starts.len() - 1), u32::MAX);
            self.mask.host.extend_from_slice(&allowed[..allowed.len().min(words)]);
            self.mask.host.resize(words * self.starts.len(), 0);
        }
    }

    fn count(&self) -> usize {
        self.starts.len()
    }

    /// Words of a row of the mask.
    fn words(&self) -> usize {
        if self.masked { self.vocab.div_ceil(32) } else { 0 }
    }

    /// What must be equal for a recorded choice to be replayed.
    pub(crate) fn shape(&self) -> (usize, bool) {
        (self.width, self.masked)
    }

    /// Whether a sampler needs the probability of its token.
    pub(crate) fn probabilities(&self) -> bool {
        self.probabilities
    }

    /// Writes all to the device; whether something had to move.
    pub(crate) fn upload(&mut self, device: &Device) -> Result<bool> {
        self.mask.host.resize(self.words() * self.count(), u32::MAX);
        self.edited.host.clear();
        self.edits.host.clear();
        for row in 0..self.count() {
            let changes =
                &self.changes[self.starts[row]..self.starts.get(row + 1).copied().unwrap_or(self.changes.len())];
            // One that changes nothing, or the last once more.
            let padding = changes.last().copied().unwrap_or((0, [0., 1., 0., 0.]));
            let padding = std::iter::repeat_n(padding, self.width - changes.len());
            for (token, values) in changes.iter().copied().chain(padding) {
                self.edited.host.push(token);
                self.edits.host.extend(values);
            }
        }
        let mut moved = self.rows.upload(device)? | self.edited.upload(device)?;
        moved |= self.edits.upload(device)? | self.mask.upload(device)?;
        Ok(moved)
    }

    /// The operands of `count` rows from `first` on.
    pub(crate) fn rows(&self, first: usize, count: usize) -> Result<SampleRows<'_>> {
        let rows = self.rows.rows(first, count, SampleRow::LEN)?;
        let edited = self.edited.rows(first, count, self.width)?;
        let edits = self.edits.rows(first, count, 4 * self.width)?.reshape(&[count, self.width, 4])?;
        let mask = self.mask.rows(first, count, self.words())?;
        Ok(SampleRows { rows, edited, edits, mask })
    }
}
