//! Views, and their adjoint: gradients written back to the viewed positions.

use crate::autograd::differentiable;
use crate::{BitNetError, BitNetTensor, Layout, Result, TensorOpError, TensorShape};
use std::sync::Arc;

/// The function of layouts that makes a view.
pub type Change = Arc<dyn Fn(&Layout) -> Result<Layout> + Send + Sync>;

/// `x` with `layout`, the result of `change` on its own layout.
pub fn view(op: &'static str, x: &BitNetTensor, layout: Layout, change: Change) -> Result<BitNetTensor> {
    differentiable(
        op,
        &[x],
        || Ok(x.with_layout(layout)),
        |_| {
            let shape = *x.shape();
            move |grad: &BitNetTensor| Ok(vec![Some(write_back(op, grad, shape, &change)?)])
        },
    )
}

/// The gradient of a tensor of `shape` from that of its view; its own derivative is the view.
fn write_back(op: &'static str, grad: &BitNetTensor, shape: TensorShape, change: &Change) -> Result<BitNetTensor> {
    differentiable(
        op,
        &[grad],
        || written_back(grad, shape, change),
        |_| {
            let change = change.clone();
            move |grad: &BitNetTensor| {
                let (grad, layout) = match change(grad.layout()) {
                    Err(BitNetError::TensorOp(e)) if matches!(*e, TensorOpError::NotContiguous { .. }) => {
                        let copy = grad.copy()?;
                        let layout = change(copy.layout())?;
                        (copy, layout)
                    }
                    layout => (grad.clone(), layout?),
                };
                Ok(vec![Some(view(op, &grad, layout, change.clone())?)])
            }
        },
    )
}

fn written_back(grad: &BitNetTensor, shape: TensorShape, change: &Change) -> Result<BitNetTensor> {
    let zeros = || BitNetTensor::zeros(shape.dims(), grad.dtype(), grad.device());
    let mut layout = change(&Layout::contiguous(shape))?;
    if layout.shape().elements() == 0 {
        return zeros();
    }
    let mut grad = grad.clone();
    let axes = |layout: &Layout, wanted: fn(isize) -> bool| -> Vec<isize> {
        let all = layout.dims().iter().zip(layout.strides()).enumerate();
        all.filter(|(_, (extent, stride))| **extent > 1 && wanted(**stride)).map(|(axis, _)| axis as isize).collect()
    };
    // Repeated elements get the sum.
    let repeated = axes(&layout, |stride| stride == 0);
    if !repeated.is_empty() {
        let mut dims = layout.dims().to_vec();
        for &axis in &repeated {
            layout = layout.narrow(axis as usize, 0, 1)?;
            dims[axis as usize] = 1;
        }
        grad = grad.sum_to_shape(&dims)?;
    }
    let backwards = axes(&layout, |stride| stride < 0);
    if !backwards.is_empty() {
        for &axis in &backwards {
            layout = layout.flip(axis as usize)?;
        }
        grad = grad.flip(&backwards)?;
    }
    // Every element occurs once: the dimensions in memory order give the whole tensor.
    let mut order: Vec<usize> = (0..layout.dims().len()).collect();
    order.sort_by_key(|&axis| match layout.dims()[axis] {
        1 => isize::MIN,
        _ => -layout.strides()[axis],
    });
    let sorted = layout.permute(&order)?;
    if sorted.shape().elements() == shape.elements() && sorted.offset() == 0 && sorted.is_contiguous() {
        let order: Vec<isize> = order.iter().map(|&axis| axis as isize).collect();
        return grad.permute(&order)?.reshape(shape.dims());
    }
    let mut out = zeros()?;
    if !layout.overlaps() {
        out.write(layout, &grad)?;
        return Ok(out);
    }
    let places: Vec<i64> = layout.indices().map(|place| place as i64).collect();
    let count = [places.len()];
    let places = BitNetTensor::from_places("unfold", places, &count, grad.device())?;
    let mut flat = out.reshape(&[shape.elements()])?.wide("unfold")?;
    drop(out);
    flat.scatter_add_(0, &places, &grad.reshape(&count)?.to_dtype(flat.dtype())?)?;
    flat.reshape(shape.dims())?.to_dtype(grad.dtype())
}
