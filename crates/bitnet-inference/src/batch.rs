//! The rows of one step: parts of prompts and single tokens of any sequences.

use crate::Result;
use crate::kv_cache::PAGE;
use bitnet_core::backend::{KvRows, StateRows, TensorRef};
use bitnet_core::{BitNetTensor, Device, Element};

/// Rows of a step, filled on the host and written to the device.
#[derive(Debug)]
pub(crate) struct StepBatch {
    ids: Words,
    positions: Words,
    /// Row of the table of pages.
    sequences: Words,
    /// Where keys and values go: `page * PAGE + position in the page`.
    slots: Words,
    /// `[sequences, width]`, padded with page 0.
    table: Words,
    /// Of each sequence, where the states of layers that keep one are.
    states: Words,
    /// Rows whose logits are wanted.
    wanted: Words,
    tables: Vec<u32>,
    /// First page of each sequence in `tables`, and the end.
    starts: Vec<usize>,
    width: usize,
}

/// Numbers on the host and on the device.
#[derive(Debug)]
pub(crate) struct Mirrored<T> {
    pub(crate) host: Vec<T>,
    tensor: BitNetTensor,
}

type Words = Mirrored<u32>;

impl<T: Element> Mirrored<T> {
    pub(crate) fn new(capacity: usize, device: &Device) -> Result<Self> {
        let tensor = BitNetTensor::empty(&[capacity], T::DTYPE, device)?;
        Ok(Self { host: Vec::with_capacity(capacity), tensor })
    }

    /// Whether the tensor had to move.
    pub(crate) fn upload(&mut self, device: &Device) -> Result<bool> {
        let grown = self.tensor.elements() < self.host.len();
        if grown {
            self.tensor = BitNetTensor::empty(&[self.host.len().next_power_of_two()], T::DTYPE, device)?;
        }
        device.write(self.tensor.as_mut()?.storage, 0, bytemuck::cast_slice(&self.host))?;
        Ok(grown)
    }

    fn view(&self) -> Result<TensorRef<'_>> {
        Ok(self.tensor.as_ref().narrow(0, 0, self.host.len())?)
    }

    /// Rows of this width from `first` on, `[count, width]`.
    pub(crate) fn rows(&self, first: usize, count: usize, width: usize) -> Result<TensorRef<'_>> {
        Ok(self.tensor.as_ref().narrow(0, first * width, count * width)?.reshape(&[count, width])?)
    }
}

impl StepBatch {
    /// Room for `rows` rows; the table grows with the pages.
    pub(crate) fn new(rows: usize, device: &Device) -> Result<Self> {
        let words = || Words::new(rows, device);
        let (table, tables, starts) = (Words::new(64, device)?, Vec::with_capacity(64), Vec::with_capacity(rows + 1));
        let (ids, positions, sequences, slots) = (words()?, words()?, words()?, words()?);
        let (states, wanted) = (words()?, words()?);
        Ok(Self { ids, positions, sequences, slots, table, states, wanted, tables, starts, width: 1 })
    }

    pub(crate) fn clear(&mut self) {
        for words in [&mut self.ids, &mut self.positions, &mut self.sequences, &mut self.slots, &mut self.states] {
            words.host.clear();
        }
        self.wanted.host.clear();
        self.tables.clear();
        self.starts.clear();
    }

    /// Adds tokens of a sequence from `position` on, for which it has pages and the place `state` for states; `wanted` says of
    /// each by its place whether its logits are wanted.
    pub(crate) fn push(
        &mut self,
        (pages, state): (&[u32], u32),
        position: usize,
        tokens: &[u32],
        wanted: impl Fn(usize) -> bool,
    ) {
        self.states.host.push(state);
        let sequence = self.starts.len() as u32;
        self.starts.push(self.tables.len());
        // What lies behind the last token is not seen.
        self.tables.extend_from_slice(&pages[..(position + tokens.len()).div_ceil(PAGE)]);
        for (i, &token) in tokens.iter().enumerate() {
            let at = position + i;
            if wanted(i) {
                self.wanted.host.push(self.ids.host.len() as u32);
            }
            self.ids.host.push(token);
            self.positions.host.push(at as u32);
            self.sequences.host.push(sequence);
            self.slots.host.push(pages[at / PAGE] * PAGE as u32 + (at % PAGE) as u32);
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.ids.host.len()
    }

    pub(crate) fn sequences(&self) -> usize {
        self.starts.len()
    }

    /// Rows whose logits are wanted.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted.host.len()
    }

    /// One past the largest position.
    pub(crate) fn positions_end(&self) -> usize {
        self.positions.host.iter().max().map_or(0, |&last| last as usize + 1)
    }

    /// Columns of the table of pages.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Writes all to the device; whether something had to move.
    pub(crate) fn upload(&mut self, device: &Device) -> Result<bool> {
        let ends = self.starts.iter().skip(1).copied().chain([self.tables.len()]);
        let longest = self.starts.iter().zip(ends).map(|(start, end)| end - start).max().unwrap_or(0);
        // In powers of two, so that a recorded step serves for a while.
        self.width = longest.next_power_of_two();
        self.table.host.clear();
        for (i, &start) in self.starts.iter().enumerate() {
            let pages = &self.tables[start..self.starts.get(i + 1).copied().unwrap_or(self.tables.len())];
            self.table.host.extend_from_slice(pages);
            self.table.host.resize((i + 1) * self.width, 0);
        }
        let mut moved = false;
        for words in [
            &mut self.ids,
            &mut self.positions,
            &mut self.sequences,
            &mut self.slots,
            &mut self.table,
            &mut self.states,
            &mut self.wanted,
        ] {
            moved |= words.upload(device)?;
        }
        Ok(moved)
    }

    pub(crate) fn ids(&self) -> Result<TensorRef<'_>> {
        self.ids.view()
    }

    pub(crate) fn positions(&self) -> Result<TensorRef<'_>> {
        self.positions.view()
    }

    pub(crate) fn slots(&self) -> Result<TensorRef<'_>> {
        self.slots.view()
    }

    /// The wanted rows from `first` on, `count` of them.
    pub(crate) fn wanted_rows(&self, first: usize, count: usize) -> Result<TensorRef<'_>> {
        Ok(self.wanted.tensor.as_ref().narrow(0, first, count)?)
    }

    pub(crate) fn state_rows(&self) -> Result<StateRows<'_>> {
        let (sequences, positions) = (self.sequences.view()?, self.positions.view()?);
        Ok(StateRows { sequences, positions, slots: self.states.view()? })
    }

    pub(crate) fn attention_rows(&self) -> Result<KvRows<'_>> {
        let table = self.table.view()?.reshape(&[self.sequences(), self.width])?;
        Ok(KvRows { table, sequences: self.sequences.view()?, positions: self.positions.view()? })
    }
}
