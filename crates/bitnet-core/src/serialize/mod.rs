//! Tensors in files.
