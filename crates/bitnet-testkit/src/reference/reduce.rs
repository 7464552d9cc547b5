//! Reductions, scans and sorts of one lane of elements.

use super::number::Number::{self, Float, Int};
use super::number::rounded;
use bitnet_core::BitNetDType;
use bitnet_core::backend::{ReduceOp, ScanOp};
use std::cmp::Ordering;

/// The reduction of a lane; `None` if it is empty and the result is not defined.
pub(super) fn reduce(op: ReduceOp, line: &[Number]) -> Option<Number> {
    match op {
        ReduceOp::Sum => Some(total(line)),
        ReduceOp::Prod => Some(line.iter().fold(one(line), |a, b| times(a, *b))),
        ReduceOp::Norm => Some(Float(length(line))),
        ReduceOp::Max => first(line, Ordering::Greater).map(|i| line[i]),
        ReduceOp::Min => first(line, Ordering::Less).map(|i| line[i]),
        ReduceOp::ArgMax => first(line, Ordering::Greater).map(|i| Int(i as i128)),
        ReduceOp::ArgMin => first(line, Ordering::Less).map(|i| Int(i as i128)),
        ReduceOp::Any => Some(Int(line.iter().any(|v| !v.is_zero()).into())),
        ReduceOp::All => Some(Int(line.iter().all(|v| !v.is_zero()).into())),
    }
}

/// Euclid's norm, by the largest so that no square overflows.
fn length(line: &[Number]) -> f64 {
    let sizes = line.iter().map(|x| x.float().abs());
    let largest = sizes.clone().fold(0., |a: f64, b| if b > a || b.is_nan() { b } else { a });
    if largest == 0. || !largest.is_finite() {
        return largest;
    }
    sizes.map(|x| (x / largest).powi(2)).sum::<f64>().sqrt() * largest
}

fn total(line: &[Number]) -> Number {
    line.iter().copied().reduce(plus).unwrap_or(Float(0.))
}

/// 1 in the type of the elements.
fn one(line: &[Number]) -> Number {
    if matches!(line.first(), Some(Int(_))) { Int(1) } else { Float(1.) }
}

fn plus(a: Number, b: Number) -> Number {
    match (a, b) {
        (Int(a), Int(b)) => Int(a.wrapping_add(b)),
        _ => Float(a.float() + b.float()),
    }
}

fn times(a: Number, b: Number) -> Number {
    match (a, b) {
        (Int(a), Int(b)) => Int(a.wrapping_mul(b)),
        _ => Float(a.float() * b.float()),
    }
}

/// Position of the first extreme element, a NaN before all.
fn first(line: &[Number], better: Ordering) -> Option<usize> {
    if let Some(nan) = line.iter().position(|v| v.is_nan()) {
        return Some(nan);
    }
    (0..line.len()).reduce(|best, i| if line[i].compare(line[best]) == Some(better) { i } else { best })
}

/// Sums or products of every prefix; accumulated wide, each result rounded by the write.
pub(super) fn scan(op: ScanOp, line: &[Number]) -> Vec<Number> {
    let combine = match op {
        ScanOp::Sum => plus,
        ScanOp::Prod => times,
    };
    let mut so_far = None;
    line.iter()
        .map(|&v| {
            let next = so_far.map_or(v, |a| combine(a, v));
            so_far = Some(next);
            next
        })
        .collect()
}

/// Positions of a stable sort, NaN as the largest.
pub(super) fn order(line: &[Number], descending: bool) -> Vec<usize> {
    let compare = |a: &usize, b: &usize| {
        let (x, y) = (line[*a], line[*b]);
        let ascending = x.compare(y).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan()));
        if descending { ascending.reverse() } else { ascending }
    };
    let mut positions: Vec<usize> = (0..line.len()).collect();
    positions.sort_by(compare);
    positions
}

/// `a . b`, floats summed in f64, integers exactly modulo 2^128.
pub(super) fn dot(a: impl Iterator<Item = Number>, b: impl Iterator<Item = Number>, float: bool) -> Number {
    let zero = if float { Float(0.) } else { Int(0) };
    a.zip(b).fold(zero, |sum, (a, b)| plus(sum, times(a, b)))
}

/// The element that a scatter stores in place of `old`.
pub(super) fn added(dtype: BitNetDType, old: Number, new: Number) -> Number {
    rounded(dtype, plus(old, new))
}
