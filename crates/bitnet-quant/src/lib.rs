//! Ternary quantization: packed formats, quantizers and BitLinear.
