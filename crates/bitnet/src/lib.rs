//! Ternary (1.58-bit) neural networks in Rust: the facade of the workspace.
