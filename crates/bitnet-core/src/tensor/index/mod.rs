//! Indexing: positions, slices, new axes, index tensors and masks, to read and to write.

mod plan;

use super::gather::index_dtype;
use super::views::argument;
use crate::autograd::is_recorded;
use crate::backend::{ScatterOp, TensorMut};
use crate::{BitNetTensor, Operand, Result, TensorShape};
use plan::Plan;
use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// Python's `start:end:step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// First position; negative counts from the end.
    pub start: Option<isize>,
    /// End position, excluded; negative counts from the end.
    pub end: Option<isize>,
    /// Not zero; negative runs backwards.
    pub step: isize,
}

impl Slice {
    /// The same range with this step.
    pub fn by(self, step: isize) -> Self {
        Self { step, ..self }
    }
}

/// One component of an index; [`idx!`](crate::idx) makes a list of them.
#[derive(Debug, Clone, Copy)]
pub enum Index<'a> {
    /// One position of a dimension, which is removed; negative counts from the end.
    At(isize),
    /// A range of a dimension.
    Slice(Slice),
    /// All remaining dimensions.
    Ellipsis,
    /// A dimension of extent 1.
    NewAxis,
    /// Positions of a dimension by an integer tensor (negative from the end), or of several by a `Bool` mask of their
    /// shape.
    Tensor(&'a BitNetTensor),
}

impl<'a> From<&'a BitNetTensor> for Index<'a> {
    fn from(tensor: &'a BitNetTensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl<'a> From<Slice> for Index<'a> {
    fn from(slice: Slice) -> Self {
        Self::Slice(slice)
    }
}

/// `Slice` and `Index` from the ranges of Rust. `$to` converts an end to isize, saturating: ends out of range are
/// clipped.
macro_rules! ranges {
    ($($range:ty => |$r:ident| ($start:expr, $end:expr)),* $(,)?) => { $(
        impl From<$range> for Slice {
            fn from($r: $range) -> Self {
                Self { start: $start, end: $end, step: 1 }
            }
        }
        impl From<$range> for Index<'_> {
            fn from(range: $range) -> Self {
                Self::Slice(range.into())
            }
        }
    )* };
}
macro_rules! integers {
    ($($t:ty),*) => { $(
        impl From<$t> for Index<'_> {
            fn from(at: $t) -> Self {
                Self::At(place(at))
            }
        }
        ranges! {
            Range<$t> => |r| (Some(place(r.start)), Some(place(r.end))),
            RangeFrom<$t> => |r| (Some(place(r.start)), None),
            RangeTo<$t> => |r| (None, Some(place(r.end))),
            RangeInclusive<$t> => |r| (Some(place(*r.start())), position_after(place(*r.end()))),
            RangeToInclusive<$t> => |r| (None, position_after(place(r.end))),
        }
    )* };
}
ranges! { RangeFull => |_r| (None, None) }
integers!(i32, isize, usize);

/// No dimension is larger than isize.
fn place(at: impl TryInto<isize>) -> isize {
    at.try_into().unwrap_or(isize::MAX)
}

/// The position after `last`; after -1 is the end.
fn position_after(last: isize) -> Option<isize> {
    if last == -1 { None } else { Some(last.saturating_add(1)) }
}

/// A list of [`Index`]: integers, ranges, ranges with a step after `;`, `NewAxis`, `Ellipsis`, and references to
/// tensors. `..` is one whole dimension, Python's `:`.
///
/// ```
/// use bitnet_core::{BitNetTensor, Device, idx};
/// let x = BitNetTensor::from_vec((0..24).collect(), &[2, 3, 4], &Device::cpu())?;
/// let ids = BitNetTensor::from_slice(&[0i64, 2], &[2], &Device::cpu())?;
/// assert_eq!(x.index(&idx![1, .., 1..3])?.dims(), [3, 2]);
/// assert_eq!(x.index(&idx![0, 0, ..; -1])?.to_vec::<i32>()?, [3, 2, 1, 0]);
/// assert_eq!(x.index(&idx![Ellipsis, -1, NewAxis])?.dims(), [2, 3, 1]);
/// assert_eq!(x.index(&idx![.., &ids])?.dims(), [2, 2, 4]);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[macro_export]
macro_rules! idx {
    (@ [$($done:expr,)*]) => { [$($done),*] };
    (@ [$($done:expr,)*] NewAxis $(, $($rest:tt)*)?) => {
        $crate::idx!(@ [$($done,)* $crate::Index::NewAxis,] $($($rest)*)?)
    };
    (@ [$($done:expr,)*] Ellipsis $(, $($rest:tt)*)?) => {
        $crate::idx!(@ [$($done,)* $crate::Index::Ellipsis,] $($($rest)*)?)
    };
    (@ [$($done:expr,)*] $range:expr; $step:expr $(, $($rest:tt)*)?) => {
        $crate::idx!(@ [$($done,)* $crate::Index::Slice($crate::Slice::from($range).by($step)),] $($($rest)*)?)
    };
    (@ [$($done:expr,)*] $index:expr $(, $($rest:tt)*)?) => {
        $crate::idx!(@ [$($done,)* $crate::Index::from($index),] $($($rest)*)?)
    };
    ($($index:tt)*) => { $crate::idx!(@ [] $($index)*) };
}

impl BitNetTensor {
    /// `self[indices]` by PyTorch's rules. Without index tensors a view; with them a copy, in which their broadcast
    /// dimensions take the place of the indexed ones if those are adjacent, else come first.
    pub fn index(&self, indices: &[Index]) -> Result<Self> {
        const OP: &str = "index";
        self.unpacked(OP)?;
        if is_recorded(&[self]) {
            let (places, count) = (self.places(indices)?, self.elements());
            let dims = places.dims().to_vec();
            return self.reshape(&[count])?.index_select(0, &places.reshape(&[places.elements()])?)?.reshape(&dims);
        }
        let plan = Plan::new(OP, self, indices)?;
        if plan.columns.is_empty() {
            crate::profile::view("index");
            return Ok(self.with_layout(plan.layout));
        }
        let dims = plan.result()?;
        if let Ok(merged) = plan.merged() {
            let ids = Self::from_places(OP, plan.rows(), &[plan.shape.elements()], &self.device)?;
            return self.with_layout(merged).index_select(plan.start as isize, &ids)?.reshape(dims.dims());
        }
        let places = plan.places(&dims)?;
        let ids = Self::from_places(OP, places, &[dims.elements()], &self.device)?;
        self.with_layout(self.whole_storage()?).gather(0, &ids)?.reshape(dims.dims())
    }

    /// `self[indices] = values` (a number or a tensor of this dtype, which broadcasts). Of several writes to one
    /// element the last wins. Nothing is written if an index is out of range.
    ///
    /// ```
    /// use bitnet_core::{BitNetDType, BitNetTensor, Device, idx};
    /// let mut x = BitNetTensor::zeros(&[2, 3], BitNetDType::F32, &Device::cpu())?;
    /// x.index_put_(&idx![1, ..; 2], 5.0)?;
    /// assert_eq!(x.to_vec::<f32>()?, [0., 0., 0., 5., 0., 5.]);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    pub fn index_put_<'a>(&mut self, indices: &[Index], values: impl Into<Operand<'a>>) -> Result<&mut Self> {
        self.put("index_put_", ScatterOp::Assign, indices, values.into())
    }

    /// [`index_put_`](Self::index_put_) that adds to the elements instead of replacing them.
    pub fn index_put_accumulate_<'a>(
        &mut self,
        indices: &[Index],
        values: impl Into<Operand<'a>>,
    ) -> Result<&mut Self> {
        self.put("index_put_accumulate_", ScatterOp::Add, indices, values.into())
    }

    /// [`index_put_`](Self::index_put_) of a part that positions and slices name, without index tensors.
    pub fn slice_assign<'a>(&mut self, part: &[Index], values: impl Into<Operand<'a>>) -> Result<&mut Self> {
        if part.iter().any(|index| matches!(index, Index::Tensor(_))) {
            return Err(argument("slice_assign", "an index tensor names no slice: use index_put_".into()));
        }
        self.put("slice_assign", ScatterOp::Assign, part, values.into())
    }

    fn put(&mut self, op: &'static str, scatter: ScatterOp, indices: &[Index], values: Operand) -> Result<&mut Self> {
        self.unpacked(op)?;
        let values = self.operand(op, values)?;
        if self.is_rewritten(op, &[&values])? {
            let (places, dims) = (self.places(indices)?, self.dims().to_vec());
            let count = [places.elements()];
            let values = values.expand(places.dims())?.reshape(&count)?;
            let mut flat = self.reshape(&[self.elements()])?;
            flat.scatter_with(op, scatter, 0, &places.reshape(&count)?, (&values).into())?;
            *self = flat.reshape(&dims)?;
            return Ok(self);
        }
        // The layout is final once the storage is not shared.
        self.as_mut()?;
        let plan = Plan::new(op, self, indices)?;
        let dims = plan.result()?;
        let values = values.expand(dims.dims())?;
        if plan.columns.is_empty() && scatter == ScatterOp::Assign {
            self.write(plan.layout, &values)?;
            return Ok(self);
        }
        let device = self.device.clone();
        if let Some(merged) = plan.merged().ok().filter(|_| !plan.columns.is_empty()) {
            let mut rows = vec![1; merged.dims().len() - plan.start];
            rows[0] = plan.shape.elements();
            let mut to = merged.dims().to_vec();
            to[plan.start] = rows[0];
            let ids = Self::from_places(op, plan.rows(), &rows, &device)?.expand(&to)?;
            let values = values.reshape(&to)?;
            let out = TensorMut { layout: merged, ..self.as_mut()? };
            device.scatter(scatter, values.as_ref(), plan.start, ids.as_ref(), out)?;
            return Ok(self);
        }
        let count = [dims.elements()];
        let (ids, values) = (Self::from_places(op, plan.places(&dims)?, &count, &device)?, values.reshape(&count)?);
        let out = TensorMut { layout: self.whole_storage()?, ..self.as_mut()? };
        device.scatter(scatter, values.as_ref(), 0, ids.as_ref(), out)?;
        Ok(self)
    }

    /// The row-major index of each element selected by `indices`.
    fn places(&self, indices: &[Index]) -> Result<Self> {
        let dtype = index_dtype(&self.device);
        let all = Self::arange(0, self.elements(), 1, dtype, &self.device)?.reshape(self.dims())?;
        all.index(indices)
    }

    /// The storage as one dimension.
    fn whole_storage(&self) -> Result<crate::Layout> {
        Ok(crate::Layout::contiguous(TensorShape::new(&[self.storage.len_bytes() / self.dtype.size()])?))
    }
}
