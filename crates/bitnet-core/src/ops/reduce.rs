//! Reductions over any dimensions: the calls to the device. The public methods are in `statistics` and `extremes`.

use super::Axes;
use super::three_operands::wide;
use crate::autograd::{derivative, is_recorded, no_grad};
use crate::backend::{ReduceOp, TensorMut, TensorRef, summed};
use crate::{BitNetDType, BitNetTensor, Device, Layout, MAX_DIMS, Result, Scalar, TensorOpError, TensorShape};
use BitNetDType::{Bool, I64};

/// A reduction of given dimensions, and the shapes of its results.
pub(super) struct Reduction {
    name: &'static str,
    reduced: [bool; MAX_DIMS],
    /// The shape with extent 1 in the reduced dimensions.
    pub kept: TensorShape,
    /// The shape of the result.
    pub result: TensorShape,
    /// Elements reduced to each result.
    pub count: usize,
}

impl Reduction {
    pub fn new(name: &'static str, x: &BitNetTensor, axes: impl Into<Axes>, keepdim: bool) -> Result<Self> {
        x.unpacked(name)?;
        let reduced = axes.into().resolve(name, x.shape())?;
        let (mut kept, mut result, mut rank, mut count) = ([1; MAX_DIMS], [1; MAX_DIMS], 0, 1);
        for (axis, &extent) in x.dims().iter().enumerate() {
            if reduced[axis] {
                count *= extent;
            } else {
                kept[axis] = extent;
            }
            if keepdim || !reduced[axis] {
                result[rank] = kept[axis];
                rank += 1;
            }
        }
        let (kept, result) = (TensorShape::new(&kept[..x.rank()])?, TensorShape::new(&result[..rank])?);
        Ok(Self { name, reduced, kept, result, count })
    }

    /// The dimensions that are reduced.
    pub fn reduced_axes(&self, x: &BitNetTensor) -> Vec<isize> {
        (0..x.rank()).filter(|&axis| self.reduced[axis]).map(|axis| axis as isize).collect()
    }

    /// An error if the result of an empty reduction is not defined.
    pub fn not_empty(&self, x: &BitNetTensor) -> Result<()> {
        if self.count == 0 {
            let needed = "at least one element in the reduced dimensions".into();
            return Err(TensorOpError::Shape { op: self.name, what: "the tensor", got: *x.shape(), needed }.into());
        }
        Ok(())
    }

    /// The result of an empty reduction: one value everywhere.
    pub fn filled(&self, value: Scalar, dtype: BitNetDType, x: &BitNetTensor) -> Result<BitNetTensor> {
        BitNetTensor::filled(self.result.dims(), value, dtype, x.device())
    }
}

/// Adjacent dimensions that can be traversed with one stride, and are reduced or kept together.
struct Group {
    extent: usize,
    reduced: bool,
}

/// The dimensions in the order of memory, grouped: views of the operand, and of the result with extent 1 in each
/// reduced group. At least one group is reduced.
struct Collapsed {
    x: Layout,
    out: Layout,
    groups: Vec<Group>,
}

impl Collapsed {
    fn new(x: &Layout, reduction: &Reduction) -> Result<Self> {
        let out = Layout::contiguous(reduction.kept);
        // Repeated elements (stride 0) outermost, so that memory is read sequentially.
        let mut order: Vec<usize> = (0..x.dims().len()).collect();
        order.sort_by_key(|&axis| match x.strides()[axis].unsigned_abs() {
            stride if stride == 0 || x.dims()[axis] == 1 => 0,
            stride => usize::MAX - stride,
        });
        let (x, out) = (x.permute(&order)?, out.permute(&order)?);
        let mut groups: Vec<Group> = Vec::with_capacity(order.len() + 1);
        let mut last = 0;
        for (axis, (&extent, &from)) in x.dims().iter().zip(&order).enumerate() {
            let reduced = reduction.reduced[from];
            if extent == 1 {
                continue;
            }
            let run = |l: &Layout| l.strides()[last] == l.strides()[axis] * extent as isize;
            match groups.last_mut() {
                Some(group) if group.reduced == reduced && run(&x) && (reduced || run(&out)) => group.extent *= extent,
                _ => groups.push(Group { extent, reduced }),
            }
            last = axis;
        }
        if groups.iter().all(|group| !group.reduced) {
            groups.push(Group { extent: 1, reduced: true });
        }
        let from: Vec<_> = groups.iter().map(|group| group.extent).collect();
        let to: Vec<_> = groups.iter().map(|group| if group.reduced { 1 } else { group.extent }).collect();
        Ok(Self { x: x.reshape(&from)?, out: out.reshape(&to)?, groups })
    }

    fn passes(&self) -> usize {
        self.groups.iter().filter(|group| group.reduced).count()
    }

    /// The largest reduced group.
    fn axis(&self) -> usize {
        let reduced = self.groups.iter().enumerate().filter(|(_, group)| group.reduced);
        reduced.max_by_key(|(_, group)| group.extent).map_or(0, |(axis, _)| axis)
    }
}

/// The dtype of a reduction of `dtype`, but for positions.
fn result_dtype(op: ReduceOp, dtype: BitNetDType, device: &Device) -> BitNetDType {
    match op {
        ReduceOp::Sum | ReduceOp::Prod => summed(dtype, device.has(I64)),
        ReduceOp::Any | ReduceOp::All => Bool,
        _ => dtype,
    }
}

/// `op` over `axes`, in which the order of elements does not matter.
pub(super) fn reduce(
    name: &'static str,
    op: ReduceOp,
    x: &BitNetTensor,
    axes: impl Into<Axes>,
    keepdim: bool,
) -> Result<BitNetTensor> {
    let reduction = Reduction::new(name, x, axes, keepdim)?;
    let dtype = result_dtype(op, x.dtype(), x.device());
    if matches!(op, ReduceOp::Max | ReduceOp::Min) {
        reduction.not_empty(x)?;
    }
    let forward = || {
        if reduction.count == 0 {
            let identity = Scalar::Bool(matches!(op, ReduceOp::Prod | ReduceOp::All));
            return reduction.filled(identity, dtype, x);
        }
        let mut out = BitNetTensor::empty(reduction.result.dims(), dtype, x.device())?;
        if out.elements() > 0 {
            reduce_into(op, x, &reduction, &mut out)?;
        }
        Ok(out)
    };
    if !is_recorded(&[x]) {
        return forward();
    }
    if !dtype.is_float() {
        return no_grad(forward);
    }
    derivative::reduce(name, op, x, reduction.reduced_axes(x), reduction.kept, forward)
}

fn reduce_into(op: ReduceOp, x: &BitNetTensor, reduction: &Reduction, out: &mut BitNetTensor) -> Result<()> {
    let collapsed = Collapsed::new(x.layout(), reduction)?;
    let device = x.device();
    let rounds = matches!(op, ReduceOp::Sum | ReduceOp::Prod) && wide(x.dtype()) != x.dtype();
    if collapsed.passes() > 1 && rounds {
        // Several passes would round f16 and bf16 several times.
        let x = x.to_dtype(wide(x.dtype()))?;
        let mut wide_out = BitNetTensor::empty(out.dims(), x.dtype(), device)?;
        reduce_into(op, &x, reduction, &mut wide_out)?;
        return device.cast(wide_out.as_ref(), out.as_mut()?);
    }
    let mut left = TensorRef { layout: collapsed.x, ..x.as_ref() };
    let mut collapsed = collapsed;
    let mut partial;
    while collapsed.passes() > 1 {
        let axis = collapsed.axis();
        let mut dims = *left.layout.shape();
        dims = TensorShape::new(&[&dims.dims()[..axis], &[1], &dims.dims()[axis + 1..]].concat())?;
        let mut next = BitNetTensor::empty(dims.dims(), result_dtype(op, left.dtype, device), device)?;
        device.reduce(op, left, axis, next.as_mut()?)?;
        collapsed.groups[axis] = Group { extent: 1, reduced: false };
        partial = next;
        left = partial.as_ref();
    }
    device.reduce(op, left, collapsed.axis(), TensorMut { layout: collapsed.out, ..out.as_mut()? })
}

/// Mean and variance over the axes of `reduction`, floats, at least one element; see
/// [`Backend::variance`](crate::Backend::variance).
pub(super) fn moments(
    x: &BitNetTensor,
    reduction: &Reduction,
    correction: f64,
) -> Result<(BitNetTensor, BitNetTensor)> {
    let empty = || BitNetTensor::empty(reduction.result.dims(), x.dtype(), x.device());
    let (mut mean, mut variance) = (empty()?, empty()?);
    if mean.elements() > 0 {
        let one_run = OneRun::new(x, reduction)?;
        let mean = TensorMut { layout: one_run.out, ..mean.as_mut()? };
        let out = TensorMut { layout: one_run.out, ..variance.as_mut()? };
        x.device().variance(one_run.operand(), one_run.axis, correction, mean, out)?;
    }
    Ok((mean, variance))
}

/// Standard deviation over the axes of `reduction`, floats, at least one element; see
/// [`Backend::standard_deviation`](crate::Backend::standard_deviation).
pub(super) fn standard_deviation(x: &BitNetTensor, reduction: &Reduction, correction: f64) -> Result<BitNetTensor> {
    let mut out = BitNetTensor::empty(reduction.result.dims(), x.dtype(), x.device())?;
    if out.elements() > 0 {
        let one_run = OneRun::new(x, reduction)?;
        let out = TensorMut { layout: one_run.out, ..out.as_mut()? };
        x.device().standard_deviation(one_run.operand(), one_run.axis, correction, out)?;
    }
    Ok(out)
}

/// An operand whose reduced dimensions are one, so that a device reduces it in one call.
struct OneRun {
    tensor: BitNetTensor,
    x: Layout,
    axis: usize,
    /// The layout of the result.
    out: Layout,
}

impl OneRun {
    fn new(x: &BitNetTensor, reduction: &Reduction) -> Result<Self> {
        let collapsed = Collapsed::new(x.layout(), reduction)?;
        if collapsed.passes() == 1 {
            return Ok(Self { tensor: x.clone(), x: collapsed.x, axis: collapsed.axis(), out: collapsed.out });
        }
        // Copied: kept dimensions first, a row for each result.
        let (reduced, kept): (Vec<usize>, Vec<usize>) = (0..x.rank()).partition(|&axis| reduction.reduced[axis]);
        let order: Vec<_> = kept.into_iter().chain(reduced).map(|axis| axis as isize).collect();
        let results = reduction.result.elements();
        let tensor = x.permute(&order)?.copy()?.reshape(&[results, reduction.count])?;
        let layout = *tensor.layout();
        Ok(Self { tensor, x: layout, axis: 1, out: Layout::contiguous(TensorShape::new(&[results, 1])?) })
    }

    fn operand(&self) -> TensorRef<'_> {
        TensorRef { layout: self.x, ..self.tensor.as_ref() }
    }
}

#[cfg(test)]
#[path = "reduce_tests.rs"]
mod tests;
