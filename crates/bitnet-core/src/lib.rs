//! Tensors, pooled memory, devices and the Backend seam.
