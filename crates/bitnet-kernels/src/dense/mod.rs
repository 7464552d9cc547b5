//! Dense tensors: whatever their strides, on all threads.

pub mod strided;
