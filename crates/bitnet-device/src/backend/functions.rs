//! The functions that operations apply: element by element, along a dimension, at random.

/// Element-wise functions of one operand; the result has its dtype. Names and corner cases are PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum UnaryOp {
    // Every numeric dtype.
    Neg,
    Abs,
    /// -1, 0 or 1; NaN gives 0 as in PyTorch.
    Sign,
    Square,
    Relu,
    /// `max(x, 0)^2`.
    Relu2,
    Floor,
    Ceil,
    /// To the nearest integer, ties to even.
    Round,
    Trunc,
    /// Bitwise for integers; logical for `Bool`.
    Not,
    // Floats.
    Sqrt,
    Rsqrt,
    Reciprocal,
    Exp,
    Exp2,
    Expm1,
    Log,
    Log2,
    Log10,
    Log1p,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Erf,
    Sigmoid,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * (1 + erf(x / sqrt(2))) / 2` (Hendrycks and Gimpel 2016).
    GeluErf,
    /// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2` (the same paper).
    GeluTanh,
}

/// Element-wise functions of two operands of one dtype, which is also that of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum BinaryOp {
    /// Logical or for `Bool`.
    Add,
    Sub,
    /// Logical and for `Bool`.
    Mul,
    /// Floats only: integers are cast beforehand.
    Div,
    /// Towards negative infinity.
    FloorDiv,
    /// With the sign of the divisor, as Python's `%`.
    Remainder,
    Pow,
    Atan2,
    /// NaN where one is.
    Minimum,
    /// NaN where one is.
    Maximum,
    // Integers and `Bool`.
    And,
    Or,
    Xor,
    Shl,
    Shr,
}

/// Comparisons; the result is a `Bool` tensor. All but `Ne` are false if an operand is NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Reductions over one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ReduceOp {
    /// Floats keep their dtype (accumulated in f32 or f64), other dtypes give that of [`summed`](super::summed), wrapping.
    Sum,
    /// Dtypes as `Sum`.
    Prod,
    /// Root of the sum of squares of f32 and f64, which neither overflow nor vanish on the way; their dtype.
    Norm,
    /// NaN where one is. No elements is an error.
    Max,
    /// NaN where one is. No elements is an error.
    Min,
    /// Whether any is not zero, `Bool`.
    Any,
    /// Whether none is zero, `Bool`.
    All,
    /// Position of the first maximum, `I64` or `U32`; NaN is the largest. An error without elements.
    ArgMax,
    /// Position of the first minimum, `I64` or `U32`; NaN is the smallest. An error without elements.
    ArgMin,
}

/// Cumulative reductions along one dimension; dtypes as [`ReduceOp::Sum`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ScanOp {
    Sum,
    Prod,
}

/// How a scattered element changes the one at its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScatterOp {
    /// Replaces it; of several the last in row-major order wins.
    Assign,
    /// Adds to it.
    Add,
}

/// Distributions of random numbers.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// Uniform in `[low, high)`, floats.
    Uniform { low: f64, high: f64 },
    /// Normal, floats.
    Normal { mean: f64, std: f64 },
    /// Integers `low..high` in any numeric dtype.
    Integer { low: i64, high: i64 },
    /// 1 with probability `p`, else 0, any dtype.
    Bernoulli { p: f64 },
}

/// Activation of the gate of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateActivation {
    /// `relu(g)^2 * u` (BitNet b1.58 2B4T).
    Relu2,
    /// `g * sigmoid(g) * u` (Llama).
    Silu,
    /// `gelu(g) * u` with the approximation by a hyperbolic tangent (Gemma):
    /// `gelu(g) = g / 2 (1 + tanh(z / 2)) = g sigmoid(z)`, `z = sqrt(8 / pi) (g + 0.044715 g^3)`.
    GeluTanh,
}

impl GateActivation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Relu2, Self::Silu, Self::GeluTanh];
    /// `sqrt(8 / pi)` of [`GateActivation::GeluTanh`].
    pub const GELU_SCALE: f32 = 1.595_769;
    /// The factor of the cube of [`GateActivation::GeluTanh`].
    pub const GELU_CUBE: f32 = 0.044715;
}
