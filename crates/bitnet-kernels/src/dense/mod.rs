//! Dense tensors: whatever their strides, on all threads.

pub mod matmul;
pub mod strided;
