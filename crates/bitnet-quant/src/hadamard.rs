//! The Walsh-Hadamard transform, which distributes outliers of activations over the row before quantization.

use bitnet_core::{BitNetDType, BitNetTensor, Result, TensorOpError, TensorStorage, autograd};

/// Block size of the transform for rows of `n`: the largest power of two that divides it.
pub fn block(n: usize) -> usize {
    if n == 0 { 1 } else { 1 << n.trailing_zeros() }
}

/// `x [.., n]` with every row multiplied by the Hadamard matrix in natural (Sylvester's) order, divided by `sqrt(n)`,
/// so that it is its own inverse. Where `n` is no power of two, by one matrix for each [`block`] of the row.
///
/// Contiguous f32 in host memory uses [`transform`]; all else is a product with two smaller matrices, `H_ab` being the
/// Kronecker product of `H_a` and `H_b`, in f32 and rounded to the dtype of `x`. The gradient is transformed by the
/// same matrix, which is symmetric.
///
/// # Errors
/// When `x` is not floating point or has no dimensions.
pub fn hadamard(x: &BitNetTensor) -> Result<BitNetTensor> {
    if !x.dtype().is_float() {
        let (got, needed) = (x.dtype(), BitNetDType::F32);
        return Err(TensorOpError::DType { op: "hadamard", what: "the tensor", got, needed }.into());
    }
    if x.rank() == 0 {
        let needed = "[.., n]".into();
        return Err(TensorOpError::Shape { op: "hadamard", what: "the tensor", got: *x.shape(), needed }.into());
    }
    autograd::differentiable(
        "hadamard",
        &[x],
        || transformed(x),
        |_| |grad: &BitNetTensor| Ok(vec![Some(hadamard(grad)?)]),
    )
}

fn transformed(x: &BitNetTensor) -> Result<BitNetTensor> {
    let size = block(x.shape().last());
    if x.dtype() == BitNetDType::F32 && x.device().is_host() {
        let mut out = x.copy()?;
        let to = out.as_mut()?;
        let (start, len) = (to.layout.offset(), to.layout.shape().elements());
        if let TensorStorage::Cpu(storage) = to.storage {
            transform(&mut storage.elements_mut::<f32>()?[start..start + len], size);
            return Ok(out);
        }
    }
    let bits = size.trailing_zeros();
    let (a, b) = (1usize << (bits / 2), 1usize << bits.div_ceil(2));
    let wide = x.to_dtype(BitNetDType::F32)?.reshape(&[x.elements() / size, a, b])?;
    let matrix = |n: usize| BitNetTensor::from_slice(&sylvester(n), &[n, n], x.device());
    let product = matrix(a)?.matmul(&wide)?.matmul(&matrix(b)?)?;
    product.mul(1. / (size as f64).sqrt())?.reshape(x.dims())?.to_dtype(x.dtype())
}

/// Every block of `size` values transformed in place, `log2(size)` passes of additions (the fast transform). `size` is
/// a power of two, and the length a multiple of it.
///
/// # Panics
/// If it is not.
pub fn transform(values: &mut [f32], size: usize) {
    assert!(size.is_power_of_two(), "blocks of {size} are no power of two");
    assert!(values.len().is_multiple_of(size), "{} values are not whole blocks of {size}", values.len());
    let scale = 1. / (size as f32).sqrt();
    for block in values.chunks_exact_mut(size) {
        let mut half = 1;
        while half < size {
            for pair in block.chunks_exact_mut(2 * half) {
                let (low, high) = pair.split_at_mut(half);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        block.iter_mut().for_each(|v| *v *= scale);
    }
}

/// The matrix of ±1, `[n, n]`: -1 where the bits common to row and column are odd in number.
fn sylvester(n: usize) -> Vec<f32> {
    (0..n * n).map(|i| if ((i / n) & (i % n)).count_ones().is_multiple_of(2) { 1. } else { -1. }).collect()
}
