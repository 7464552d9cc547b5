//! How a stream of tokens is laid out in rows.

use super::set::TokenSet;
use crate::config::Packing;
use crate::error::{Result, TrainingError};

/// Consecutive tokens of a row: `len` inputs from `start` on, their targets one further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub start: usize,
    pub len: usize,
}

/// The rows of an epoch.
#[derive(Debug)]
pub(super) enum Rows {
    /// Row `r` is the segment at `r * context`.
    Stream { count: usize },
    /// Segments of row `r` are `segments[ends[r - 1]..ends[r]]`.
    Documents { segments: Vec<Segment>, ends: Vec<usize> },
}

impl Rows {
    /// Lays `tokens` out; the last row of a stream may be shorter than the context where `partial` allows it.
    pub fn new(tokens: &TokenSet, context: usize, packing: Packing, partial: bool) -> Result<Self> {
        let inputs = tokens.len().saturating_sub(1);
        let rows = match packing {
            Packing::Stream if partial => Self::Stream { count: inputs.div_ceil(context) },
            Packing::Stream => Self::Stream { count: inputs / context },
            Packing::Packed => documents(tokens, context, true)?,
            Packing::Padded => documents(tokens, context, false)?,
        };
        if rows.count() == 0 {
            let (len, need) = (tokens.len(), if packing == Packing::Stream && !partial { context + 1 } else { 2 });
            let problem = format!("{len} tokens make no row of {context}: at least {need} are needed");
            return Err(TrainingError::data(tokens.path(), problem));
        }
        Ok(rows)
    }

    pub fn count(&self) -> usize {
        match self {
            Self::Stream { count } => *count,
            Self::Documents { ends, .. } => ends.len(),
        }
    }

    /// Calls `each` with the segments of a row, in order.
    pub fn segments(
        &self,
        row: usize,
        tokens: &TokenSet,
        context: usize,
        mut each: impl FnMut(Segment) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Stream { .. } => {
                let start = row * context;
                each(Segment { start, len: context.min(tokens.len() - 1 - start) })
            }
            Self::Documents { segments, ends } => {
                let from = if row == 0 { 0 } else { ends[row - 1] };
                segments[from..ends[row]].iter().try_for_each(|segment| each(*segment))
            }
        }
    }
}

/// Documents in their order, the longer ones in pieces; a row takes the next ones as long as they fit, or just one.
///
/// The last token of a document is only a target: nothing follows it.
fn documents(tokens: &TokenSet, context: usize, several: bool) -> Result<Rows> {
    let (mut segments, mut ends) = (Vec::new(), Vec::new());
    let mut left = 0;
    for document in tokens.documents()? {
        let last = document.end - 1;
        for start in (document.start..last).step_by(context) {
            let len = context.min(last - start);
            if !several || len > left {
                if !segments.is_empty() {
                    ends.push(segments.len());
                }
                left = context;
            }
            left -= len;
            segments.push(Segment { start, len });
        }
    }
    if !segments.is_empty() {
        ends.push(segments.len());
    }
    Ok(Rows::Documents { segments, ends })
}
