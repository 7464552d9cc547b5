//! How a stream of tokens is laid out in rows.

use super::IGNORED;
use super::set::TokenSet;
use crate::config::Packing;
use crate::error::{Result, TrainingError};
use std::collections::BTreeMap;

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
        if let Some(path) = tokens.uncounted().filter(|_| packing == Packing::Stream) {
            let problem = "chats are not cut anywhere: set data.packing to \"best-fit\" and data.order to \"shuffled\"";
            return Err(TrainingError::data(path, problem));
        }
        let inputs = tokens.len().saturating_sub(1);
        let rows = match packing {
            Packing::Stream if partial => Self::Stream { count: inputs.div_ceil(context) },
            Packing::Stream => Self::Stream { count: inputs / context },
            Packing::Packed => in_order(pieces(tokens, context)?, context),
            Packing::BestFit => best_fit(pieces(tokens, context)?, context),
            Packing::Padded => {
                let segments = pieces(tokens, context)?;
                Self::Documents { ends: (1..=segments.len()).collect(), segments }
            }
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

/// Documents in pieces of at most `context` inputs, of those in which something is to be predicted.
///
/// The last token of a document is only a target: nothing follows it.
fn pieces(tokens: &TokenSet, context: usize) -> Result<Vec<Segment>> {
    let all_count = tokens.uncounted().is_none();
    let (mut segments, mut targets) = (Vec::new(), Vec::new());
    for document in tokens.documents() {
        let last = document.end - 1;
        for start in (document.start..last).step_by(context) {
            let len = context.min(last - start);
            targets.clear();
            if !all_count {
                tokens.read_targets(start + 1..start + len + 1, &mut targets)?;
            }
            if all_count || targets.iter().any(|&target| target != IGNORED) {
                segments.push(Segment { start, len });
            }
        }
    }
    Ok(segments)
}

/// A row takes the next pieces as long as they fit.
fn in_order(segments: Vec<Segment>, context: usize) -> Rows {
    let mut ends = Vec::new();
    let mut left = 0;
    for (i, segment) in segments.iter().enumerate() {
        if segment.len > left {
            if i > 0 {
                ends.push(i);
            }
            left = context;
        }
        left -= segment.len;
    }
    if !segments.is_empty() {
        ends.push(segments.len());
    }
    Rows::Documents { segments, ends }
}

/// The longest pieces first, each into the fullest row that has room for it (best-fit decreasing; Ding et al. 2024, "Fewer
/// truncations improve language modeling").
fn best_fit(mut segments: Vec<Segment>, context: usize) -> Rows {
    segments.sort_by_key(|segment| (std::cmp::Reverse(segment.len), segment.start));
    let mut rows: Vec<Vec<Segment>> = Vec::new();
    // Rows by the room that is left in them.
    let mut open: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for segment in segments {
        let found = open.range(segment.len..).next().map(|(left, _)| *left);
        let (row, left) = match found.and_then(|left| open.get_mut(&left)?.pop().map(|row| (row, left))) {
            Some(found) => found,
            None => {
                rows.push(Vec::new());
                (rows.len() - 1, context)
            }
        };
        if let Some(left) = found.filter(|left| open.get(left).is_some_and(Vec::is_empty)) {
            open.remove(&left);
        }
        rows[row].push(segment);
        let left = left - segment.len;
        if left > 0 {
            open.entry(left).or_default().push(row);
        }
    }
    let mut end = 0;
    let ends = rows.iter().map(|row| {
        end += row.len();
        end
    });
    Rows::Documents { ends: ends.collect(), segments: rows.concat() }
}
