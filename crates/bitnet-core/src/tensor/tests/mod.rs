//! Tests of the tensor's own methods; expected values are PyTorch's.

mod create;
mod gather;
mod index;
mod join;
mod mask;
mod random;
mod sort;
mod views;
