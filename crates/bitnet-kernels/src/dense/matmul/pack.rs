//! Packing: operands copied into panels.

use super::Matrix;
use super::product::Product;

/// Words of a lane that are transposed at once.
const RUN: usize = 32;

/// Which operand a panel is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Lanes are rows.
    A,
    /// Lanes are columns.
    B,
}

/// Packs `lanes` lanes from lane `first` (zeros up to `width`) of elements `from..end` along `k` to `[depth, width]` words.
/// `source` is the operand with lanes as rows: `a`, or `b` transposed.
///
/// # Safety
/// `source` holds these elements, `to` has room for `ceil((end - from) / GROUP) * width` words.
#[inline(always)]
pub(super) unsafe fn panel<P: Product>(
    p: P,
    side: Side,
    source: &Matrix<P::In>,
    (first, lanes, width): (usize, usize, usize),
    (from, end): (usize, usize),
    to: *mut P::Word,
) {
    let whole = (end - from) / P::GROUP;
    let finish = |word: P::Word| if side == Side::A { p.signed(word) } else { word };
    // SAFETY: the caller's promise.
    unsafe {
        for lane in lanes..width {
            for depth in 0..(end - from).div_ceil(P::GROUP) {
                to.add(depth * width + lane).write(finish(p.word(|_| None)));
            }
        }
        let mut start = 0;
        if source.col_stride == 1 && (P::PLAIN || P::GROUP == 1) {
            start = lanes / 4 * 4;
            // Part by part of the depth, so that what is written stays in the first cache until its lines are full.
            for depth in (0..whole).step_by(RUN) {
                let run = RUN.min(whole - depth);
                for lane in (0..start).step_by(4) {
                    let rows = std::array::from_fn(|r| source.at(first + lane + r, from + depth * P::GROUP));
                    fours(p, finish, rows, run, to.add(depth * width + lane), width);
                }
            }
        }
        // Neighbours in memory where the lanes are: vectors of as many as a panel has.
        if source.row_stride == 1 && start < lanes {
            let at = source.at(first, from);
            let stride = source.col_stride;
            match lanes {
                32 if P::COLUMNS == 32 => neighbours::<P, 32>(p, finish, at, stride, whole, to, width),
                24 if P::COLUMNS == 24 => neighbours::<P, 24>(p, finish, at, stride, whole, to, width),
                16 if P::COLUMNS == 16 => neighbours::<P, 16>(p, finish, at, stride, whole, to, width),
                12 if P::ROWS == 12 || P::COLUMNS == 12 => neighbours::<P, 12>(p, finish, at, stride, whole, to, width),
                8 if P::ROWS == 8 || P::COLUMNS == 8 => neighbours::<P, 8>(p, finish, at, stride, whole, to, width),
                4 if P::ROWS == 4 => neighbours::<P, 4>(p, finish, at, stride, whole, to, width),
                _ => {
                    for lane in 0..lanes {
                        neighbours::<P, 1>(p, finish, at.wrapping_add(lane), stride, whole, to.add(lane), width);
                    }
                }
            }
            start = lanes;
        }
        for lane in start..lanes {
            for depth in 0..whole {
                let element = |e: usize| Some(*source.at(first + lane, from + depth * P::GROUP + e));
                to.add(depth * width + lane).write(finish(p.word(element)));
            }
        }
        // The last elements, fewer than a word.
        let rest = from + whole * P::GROUP;
        if rest < end {
            for lane in 0..lanes {
                let element = |e: usize| (rest + e < end).then(|| *source.at(first + lane, rest + e));
                to.add(whole * width + lane).write(finish(p.word(element)));
            }
        }
    }
}

/// At most `RUN` words of four lanes, each with its elements one after the other: a transpose.
///
/// # Safety
/// Each row holds `depth` words, `to` has room for 4 words in each of `depth` rows of `width`.
#[inline(always)]
unsafe fn fours<P: Product>(
    p: P,
    finish: impl Fn(P::Word) -> P::Word,
    rows: [*const P::In; 4],
    depth: usize,
    to: *mut P::Word,
    width: usize,
) {
    let mut converted = [[P::Word::default(); RUN]; 4];
    // SAFETY: the caller's promise.
    unsafe {
        let words: [*const P::Word; 4] = if P::PLAIN {
            // A word of memory is a packed one.
            const { assert!(!P::PLAIN || size_of::<P::Word>() == P::GROUP * size_of::<P::In>()) };
            rows.map(|row| row.cast::<P::Word>())
        } else {
            for (row, words) in rows.iter().zip(&mut converted) {
                if depth == RUN {
                    (0..RUN).for_each(|i| words[i] = p.word(|_| Some(*row.add(i))));
                } else {
                    (0..depth).for_each(|i| words[i] = p.word(|_| Some(*row.add(i))));
                }
            }
            converted.each_ref().map(|words| words.as_ptr())
        };
        let mut d = 0;
        while d + 4 <= depth {
            let block = words.map(|row| row.add(d).cast::<[P::Word; 4]>().read_unaligned());
            for i in 0..4 {
                let column: [P::Word; 4] = std::array::from_fn(|r| finish(block[r][i]));
                to.add((d + i) * width).cast::<[P::Word; 4]>().write_unaligned(column);
            }
            d += 4;
        }
        for d in d..depth {
            let column: [P::Word; 4] = words.map(|row| finish(row.add(d).read_unaligned()));
            to.add(d * width).cast::<[P::Word; 4]>().write_unaligned(column);
        }
    }
}

/// Words of lanes that are neighbours in memory.
///
/// # Safety
/// `depth * GROUP` rows of `LANES` elements can be read, `stride` apart; `to` has room for `LANES` words in each of `depth`
/// rows of `width`.
#[inline(always)]
unsafe fn neighbours<P: Product, const LANES: usize>(
    p: P,
    finish: impl Fn(P::Word) -> P::Word,
    at: *const P::In,
    stride: isize,
    depth: usize,
    to: *mut P::Word,
    width: usize,
) {
    const { assert!(P::GROUP <= 4) };
    for d in 0..depth {
        let row = |e: usize| at.wrapping_offset(stride * (d * P::GROUP + e) as isize).cast::<[P::In; LANES]>();
        // SAFETY: the caller's promise; rows beyond a group are one of it. All is read before anything is written, so
        // that the compiler need not think of an overlap.
        unsafe {
            let rows: [_; 4] = std::array::from_fn(|e| row(e.min(P::GROUP - 1)).read_unaligned());
            let mut words = [P::Word::default(); LANES];
            for lane in 0..LANES {
                words[lane] = finish(p.word(|e| Some(rows[e][lane])));
            }
            to.add(d * width).cast::<[P::Word; LANES]>().write_unaligned(words);
        }
    }
}
