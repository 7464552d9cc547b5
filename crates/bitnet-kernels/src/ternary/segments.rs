//! Products of weights or activations that have a scale for each stretch of columns.
//!
//! A row is cut into segments within which both have one scale. The integer product of a segment is exact. A result is
//! `sum over groups of (sum over the segments of the group of f32(integer) * activation scale) * weight scale`, each product and
//! each sum rounded to f32, in the order of the columns: the same bits on every instruction set.

use super::{Activations, PANEL, TILE, TILE_COLS};
use crate::activation::sums_of;
use bitnet_device::backend::ActivationRule;

/// How rows are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Tiles of a row.
    pub(super) tiles: usize,
    /// Tiles of a segment, even; the last may be shorter.
    pub(super) segment: usize,
    /// Segments that share a weight scale.
    pub(super) group: usize,
    /// Groups; with one the weight scale is left to the caller.
    pub(super) groups: usize,
    /// Segments of a block of activations; `None`: their scale is left to the caller.
    pub(super) block: Option<usize>,
    /// Rows of `q` of a token.
    pub(super) digits: usize,
    /// Activation scales of a token.
    pub(super) blocks: usize,
    /// Sums of a row of `q`.
    pub(super) sums: usize,
}

impl Segments {
    /// `None` where one scale serves each whole row of both.
    ///
    /// # Panics
    /// When `cols` are not whole groups of a multiple of 32.
    pub fn new(rule: ActivationRule, cols: usize, groups: usize) -> Option<Segments> {
        const UNIT: usize = ActivationRule::SUM_COLUMNS;
        let tiles = cols.div_ceil(TILE_COLS);
        let group = cols / groups.max(1);
        assert!(
            groups == 1 || (group > 0 && group.is_multiple_of(UNIT) && group * groups == cols),
            "{groups} groups of {cols}"
        );
        let segment = match (rule.block(), groups) {
            (None, 1) => return None,
            (Some(block), 1) => block,
            (None, _) => group,
            (Some(block), _) => gcd(block, group),
        };
        Some(Segments {
            tiles,
            segment: segment / TILE_COLS,
            group: if groups == 1 { usize::MAX } else { group / segment },
            groups,
            block: rule.block().map(|block| block / segment),
            digits: rule.digits(),
            blocks: rule.blocks(cols),
            sums: sums_of(cols),
        })
    }

    /// Segments of a row.
    #[inline(always)]
    pub(super) fn count(&self) -> usize {
        self.tiles.div_ceil(self.segment)
    }

    /// The tiles of a segment.
    #[inline(always)]
    pub(super) fn range(&self, segment: usize) -> (usize, usize) {
        let first = segment * self.segment;
        (first, (first + self.segment).min(self.tiles))
    }

    /// The sum of row `row` of `q` over tiles `first..end`.
    #[inline(always)]
    pub(super) fn sum(&self, sums: &[i32], row: usize, (first, end): (usize, usize)) -> i32 {
        let first_sum = row * self.sums + first / 2;
        match end - first {
            // The shortest segment.
            ..=2 => sums[first_sum],
            _ => sums[first_sum..row * self.sums + end.div_ceil(2)].iter().sum(),
        }
    }

    /// Checks the lengths of [`TernaryKernel::dot_segments`](super::TernaryKernel::dot_segments); gives the number of panels.
    pub(super) fn check(&self, panels: &[u8], scales: &[f32], x: &Activations, out: &[f32]) -> usize {
        let (tokens, count) = (x.tokens(self.blocks), panels.len() / (self.tiles * TILE).max(1));
        assert_eq!(panels.len(), count * self.tiles * TILE, "panels");
        assert_eq!(x.q.len(), tokens * self.digits * self.tiles * TILE_COLS, "activations");
        assert_eq!(x.scales.len(), tokens * self.blocks, "activation scales");
        assert_eq!(x.sums.len(), tokens * self.digits * self.sums, "sums");
        assert_eq!(scales.len(), if self.groups == 1 { 0 } else { count * self.groups * PANEL }, "weight scales");
        assert_eq!(out.len(), tokens * count * PANEL, "results");
        assert!(self.segment.is_multiple_of(2) && self.groups > 0, "segments of {} tiles", self.segment);
        count
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Rows of `q` that are multiplied together.
const ROWS: usize = 4;

/// [`TernaryKernel::dot_segments`](super::TernaryKernel::dot_segments) of a function for the integers of a segment of a panel:
/// of its tiles, `q` from its first column, the bytes from row to row of `q`, and the sum of each row.
#[inline(always)]
pub(super) fn by_segments(
    s: &Segments,
    panels: &[u8],
    scales: &[f32],
    x: &Activations,
    out: &mut [f32],
    dot: impl Fn(&[u8], &[i8], usize, &[i32], &mut [[i32; PANEL]]),
) {
    let count = s.check(panels, scales, x, out);
    let (tokens, q_len) = (x.tokens(s.blocks), s.tiles * TILE_COLS);
    let together = ROWS / s.digits;
    for panel in 0..count {
        let tiles = &panels[panel * s.tiles * TILE..][..s.tiles * TILE];
        for token in (0..tokens).step_by(together) {
            let now = together.min(tokens - token);
            let (first, rows) = (token * s.digits, now * s.digits);
            let (mut total, mut inner) = ([[0f32; PANEL]; ROWS], [[0f32; PANEL]; ROWS]);
            for segment in 0..s.count() {
                let (begin, end) = s.range(segment);
                let mut sums = [0; ROWS];
                for (row, sum) in sums[..rows].iter_mut().enumerate() {
                    *sum = s.sum(x.sums, first + row, (begin, end));
                }
                let mut acc = [[0i32; PANEL]; ROWS];
                let q = &x.q[first * q_len + begin * TILE_COLS..(first + rows) * q_len];
                dot(&tiles[begin * TILE..end * TILE], q, q_len, &sums[..rows], &mut acc[..rows]);
                for t in 0..now {
                    let scale = s.block.map_or(1.0, |block| x.scales[(token + t) * s.blocks + segment / block]);
                    for r in 0..PANEL {
                        // Within 32 bits: digits of 8, the highest at most 127, over at most 128 columns.
                        let sum =
                            (0..s.digits).fold(0i32, |sum, d| sum.wrapping_add(acc[t * s.digits + d][r] << (8 * d)));
                        inner[t][r] += sum as f32 * scale;
                    }
                }
                if s.groups > 1 && (segment + 1).is_multiple_of(s.group) {
                    let scales = &scales[(panel * s.groups + segment / s.group) * PANEL..][..PANEL];
                    for t in 0..now {
                        for r in 0..PANEL {
                            total[t][r] += inner[t][r] * scales[r];
                        }
                        inner[t] = [0.0; PANEL];
                    }
                }
            }
            let results = if s.groups > 1 { &total } else { &inner };
            for (t, result) in results[..now].iter().enumerate() {
                out[((token + t) * count + panel) * PANEL..][..PANEL].copy_from_slice(result);
            }
        }
    }
}
