//! Sorting, top-k, searching and counting.

use super::gather::index_dtype;
use super::views::argument;
use crate::autograd::{is_recorded, not_differentiable};
use crate::{BitNetDType, BitNetTensor, Result, TensorOpError};
use BitNetDType::I64;
use bitnet_device::by_dtype;

impl BitNetTensor {
    /// The elements sorted along `axis`, and their former positions (`I64`; `U32` where the device lacks it). The sort is
    /// stable; NaN is the largest.
    pub fn sort(&self, axis: isize, descending: bool) -> Result<(Self, Self)> {
        const OP: &str = "sort";
        self.unpacked(OP)?;
        let Some(axis) = self.axis_of_any(OP, axis)? else {
            let (values, indices) = self.reshape(&[1])?.sort(0, descending)?;
            return Ok((values.reshape(&[])?, indices.reshape(&[])?));
        };
        if is_recorded(&[self]) {
            let indices = self.detach().sort(axis as isize, descending)?.1;
            return Ok((self.gather(axis as isize, &indices)?, indices));
        }
        let mut values = self.empty_like()?;
        let mut indices = Self::empty(self.dims(), index_dtype(&self.device), &self.device)?;
        self.device.sort(self.as_ref(), axis, descending, values.as_mut()?, indices.as_mut()?)?;
        Ok((values, indices))
    }

    /// The positions that [`sort`](Self::sort) returns.
    pub fn argsort(&self, axis: isize, descending: bool) -> Result<Self> {
        Ok(self.sort(axis, descending)?.1)
    }

    /// The `k` largest (or smallest) elements along `axis`, in order, and their positions.
    pub fn topk(&self, k: usize, axis: isize, largest: bool) -> Result<(Self, Self)> {
        let (values, indices) = self.sort(axis, largest)?;
        if values.rank() == 0 {
            return match k {
                1 => Ok((values, indices)),
                _ => Err(argument("topk", format!("{k} elements of a scalar: take 1"))),
            };
        }
        let extent = self.dims()[self.shape().axis("topk", axis)?];
        if k > extent {
            return Err(argument("topk", format!("{k} of {extent} elements: take at most {extent}")));
        }
        Ok((values.narrow(axis, 0, k)?.contiguous()?, indices.narrow(axis, 0, k)?.contiguous()?))
    }

    /// The distinct elements in order, the position of every element among them (`I64`, this shape), and their counts
    /// (`I64`). Every NaN counts as distinct, as in PyTorch.
    pub fn unique(&self) -> Result<(Self, Self, Self)> {
        not_differentiable("unique", &[self])?;
        let count = self.elements();
        let (values, order) = self.reshape(&[count])?.sort(0, false)?;
        let order = order.to_cpu()?.to_dtype(I64)?.to_vec::<i64>()?;
        let bytes = values.to_bytes()?;
        let starts = by_dtype!(self.dtype, T => group_starts(&values.to_vec::<T>()?), bool => group_starts(&bytes));
        let mut inverse = vec![0i64; count];
        let mut counts = Vec::with_capacity(starts.len());
        for (group, &start) in starts.iter().enumerate() {
            let end = starts.get(group + 1).map_or(count, |&end| end as usize);
            counts.push((end - start as usize) as i64);
            order[start as usize..end].iter().for_each(|&place| inverse[place as usize] = group as i64);
        }
        let groups = [counts.len()];
        Ok((
            values.index_select(0, &Self::from_places("unique", starts, &groups, &self.device)?)?,
            Self::from_places("unique", inverse, self.dims(), &self.device)?,
            Self::from_places("unique", counts, &groups, &self.device)?,
        ))
    }

    /// Insertion positions of `values` that keep `sorted` in order: before equal elements, or after them if `right`
    /// (`I64`, the shape of `values`). `sorted` is one row for all, or has the leading dimensions of `values`.
    pub fn searchsorted(sorted: &Self, values: &Self, right: bool) -> Result<Self> {
        const OP: &str = "searchsorted";
        sorted.same_device(OP, values)?;
        sorted.unpacked(OP)?;
        if sorted.dtype != values.dtype {
            let (got, needed) = (values.dtype, sorted.dtype);
            return Err(TensorOpError::DType { op: OP, what: "values", got, needed }.into());
        }
        let leading = |t: &Self| t.dims()[..t.rank().saturating_sub(1)].to_vec();
        if sorted.rank() != 1 && (sorted.rank() == 0 || values.rank() == 0 || leading(sorted) != leading(values)) {
            return Err(sorted.needs(OP, &format!("one dimension, or the leading ones of {}", values.shape())));
        }
        let row = sorted.shape().last();
        let lane = if sorted.rank() == 1 { values.elements() } else { values.shape().last() };
        let places = by_dtype!(
            sorted.dtype,
            T => search(&sorted.to_vec::<T>()?, row, &values.to_vec::<T>()?, lane, right),
            bool => search(&sorted.to_bytes()?, row, &values.to_bytes()?, lane, right)
        );
        Self::from_places(OP, places, values.dims(), &values.device)
    }

    /// Counts of `0, 1, ..` up to the largest element in a tensor of non-negative integers (`I64`).
    pub fn bincount(&self) -> Result<Self> {
        const OP: &str = "bincount";
        if self.rank() != 1 {
            return Err(self.needs(OP, "one dimension"));
        }
        // Seen before they become indices of the device, where negative ones may be large.
        let given = self.to_cpu()?.as_indices(OP)?.to_dtype(I64)?.to_vec::<i64>()?;
        if let Some(&least) = given.iter().min().filter(|&&least| least < 0) {
            return Err(argument(OP, format!("{least} is negative: nothing below 0 is counted")));
        }
        let bins = given.iter().max().map_or(0, |&most| most as usize + 1);
        let mut counts = Self::zeros(&[bins], index_dtype(&self.device), &self.device)?;
        counts.scatter_add_(0, &self.as_indices(OP)?, 1)?;
        Ok(counts)
    }
}

/// Where each run of equal elements begins.
fn group_starts<T: PartialEq>(sorted: &[T]) -> Vec<i64> {
    (0..sorted.len()).filter(|&i| i == 0 || sorted[i] != sorted[i - 1]).map(|i| i as i64).collect()
}

/// Insertion positions of `values`, `lane` for each row of `sorted`. NaN is the largest.
fn search<T: PartialOrd>(sorted: &[T], row: usize, values: &[T], lane: usize, right: bool) -> Vec<i64> {
    let is_nan = |value: &T| value.partial_cmp(value).is_none();
    let less = |a: &T, b: &T| a < b || !is_nan(a) && is_nan(b);
    let place = |(i, value): (usize, &T)| {
        // One row for all, or a row for each lane.
        let start = if sorted.len() == row { 0 } else { i / lane * row };
        let row = &sorted[start..start + row];
        row.partition_point(|x| if right { !less(value, x) } else { less(x, value) }) as i64
    };
    values.iter().enumerate().map(place).collect()
}
