//! CPU kernels for ternary networks: slices in, slices out.
