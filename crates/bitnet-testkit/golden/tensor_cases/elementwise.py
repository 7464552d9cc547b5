"""Functions of one operand."""

import math

import mpmath
import numpy as np
import torch

from .common import *

mp = mpmath.mp
ROOT2 = mp.sqrt(2)


def gelu_tanh(x):
    inner = mp.sqrt(2 / mp.pi) * (x + mp.mpf(0.044715) * x**3)
    return x / (1 + mp.exp(-2 * inner))


# Each function at a finite number that is not zero, to 140 bits.
EXACT = {
    "sqrt": mp.sqrt, "rsqrt": lambda x: 1 / mp.sqrt(x), "reciprocal": lambda x: 1 / x,
    "exp": mp.exp, "exp2": lambda x: mp.power(2, x), "expm1": mp.expm1,
    "log": mp.log, "log2": lambda x: mp.log(x, 2), "log10": mp.log10, "log1p": lambda x: mp.log1p(x),
    "sin": mp.sin, "cos": mp.cos, "tan": mp.tan, "asin": mp.asin, "acos": mp.acos, "atan": mp.atan,
    "sinh": mp.sinh, "cosh": mp.cosh, "tanh": mp.tanh, "erf": mp.erf,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)), "silu": lambda x: x / (1 + mp.exp(-x)),
    "gelu_erf": lambda x: x * mp.erfc(-x / ROOT2) / 2 if x > -50 else mp.mpf("-1e-400"), "gelu_tanh": gelu_tanh,
}
AT_SPECIAL = {
    "gelu_erf": lambda t: torch.nn.functional.gelu(t),
    "gelu_tanh": lambda t: torch.nn.functional.gelu(t, approximate="tanh"),
    "silu": torch.nn.functional.silu, "erf": torch.special.erf,
}
# Units of the last place for f32 and f64; f16 and bf16 are always held to one.
ULPS = {"sqrt": 0, "reciprocal": 0, "rsqrt": 2, "exp": 2, "exp2": 2, "log": 2, "sin": 2, "cos": 2, "erf": 4, "tanh": 4}
ROUNDING = ["floor", "ceil", "round", "trunc"]
cache = {}


def special(op, x):
    f = AT_SPECIAL.get(op) or getattr(torch, op)
    return f(torch.tensor(x, dtype=torch.float64)).item()


def exact(op, x):
    """The function at one number, rounded to f64."""
    x = float(x)
    key = (op, x, math.copysign(1, x))
    if key not in cache:
        value = None
        if x != 0 and math.isfinite(x):
            try:
                value = EXACT[op](mp.mpf(x))
                value = math.nan if isinstance(value, mpmath.mpc) else nearest(value)
            except (ZeroDivisionError, ValueError):
                value = None
        cache[key] = special(op, x) if value is None else value
    return cache[key]


def float_function(op, x, dtype):
    """Expected values, dtype and tolerance of a function that floats have; integers go through f32."""
    result = dtype if dtype in FLOATS else "f32"
    wide = np.asarray(x).astype(NUMPY[result])
    values = np.array([exact(op, v) for v in wide.reshape(-1)], np.float64).reshape(wide.shape)
    ulps = ULPS.get(op, 3)
    if result in ("f16", "bf16"):
        ulps = min(ulps, 1)
    absolute = 0.0
    if op.startswith("gelu"):
        # 1 + erf cancels below zero: relative to x there.
        finite = np.abs(wide[np.isfinite(wide) & (wide > -20) & (wide < 0)])
        absolute = EPS[result] * (finite.max() if finite.size else 0)
        if result in ("f16", "bf16"):
            absolute = EPS["f32"] * 20
    return rounded(values, result), result, ulps, absolute


def sign(x):
    return np.where(np.isnan(x), 0, np.sign(x)) if x.dtype.kind == "f" else np.sign(x)


def exact_function(op, x, dtype):
    x = np.asarray(x)
    if op == "isnan":
        return (np.isnan(x) if dtype in FLOATS else np.zeros(x.shape, bool)), "bool"
    if op == "isinf":
        return (np.isinf(x) if dtype in FLOATS else np.zeros(x.shape, bool)), "bool"
    if op == "isfinite":
        return (np.isfinite(x) if dtype in FLOATS else np.ones(x.shape, bool)), "bool"
    if op == "logical_not":
        return x == 0, "bool"
    if op == "bitwise_not":
        return np.invert(x), dtype
    if dtype in FLOATS:
        wide = x.astype(np.float32) if dtype == "f16" else x
        f = {
            "neg": np.negative, "abs": np.abs, "sign": sign, "square": np.square, "floor": np.floor, "ceil": np.ceil,
            "round": np.rint, "trunc": np.trunc, "relu": lambda v: np.where(v > 0, v, np.where(np.isnan(v), v, 0)),
            "relu2": lambda v: np.where(v > 0, v * v, np.where(np.isnan(v), v, 0)),
        }[op]
        return rounded(f(wide), dtype), dtype
    f = {
        "neg": lambda v: -v, "abs": abs, "sign": lambda v: (v > 0) - (v < 0), "square": lambda v: v * v,
        "relu": lambda v: max(v, 0), "relu2": lambda v: max(v, 0) ** 2,
    }.get(op, lambda v: v)
    if dtype == "bool":
        return x, dtype
    return np.array([wrap(f(int(v)), dtype) for v in x.reshape(-1)], NUMPY[dtype]).reshape(x.shape), dtype


def torch_agrees(op, x, values, dtype, absolute):
    """PyTorch itself must give the same within a thousandth (its own rounding is not ours)."""
    names = {"relu2": lambda t: torch.relu(t) ** 2, "relu": torch.relu, **AT_SPECIAL}
    if dtype not in FULL:
        return
    try:
        got = (names.get(op) or getattr(torch, op))(x.torch())
    except (RuntimeError, NotImplementedError) as error:
        print(f"torch refuses {op} of {dtype}: {str(error)[:80]}")
        return
    got = got.to(torch.float64).numpy()
    expected = np.asarray(values).astype(np.float64)
    loose = max(4 * EPS.get(dtype, 2e-7), 1e-6)
    near = np.isclose(got, expected, rtol=loose, atol=1e-7 + absolute * 8, equal_nan=True)
    if dtype in ("f16", "bf16", "f32") and not near.all():
        # Results beyond the largest number round either way in a lower precision.
        near |= np.isinf(got) & (np.abs(expected) > 6e4)
    assert near.all(), (op, dtype, np.asarray(x.value)[~near], got[~near], expected[~near])


EXACT_OPS = ["neg", "abs", "sign", "square", "relu", "relu2", *ROUNDING]
LOGIC_OPS = ["isnan", "isinf", "isfinite", "logical_not"]


def operands(op, dtype, number):
    """The corners, a scalar, no elements, other layouts, a long pattern."""
    values = corners(dtype)
    if op.startswith("gelu"):
        # PyTorch's own kernels disagree at infinities: its f32 one gives NaN for both, its f64 one does not.
        values = values[~np.isinf(values)]
    yield T(values, dtype)
    yield T(values[number % len(values)], dtype, shape=[])
    yield T(values[:0], dtype, shape=[[0], [2, 0, 3], [0, 1]][number % 3])
    yield layouts(values, dtype, number)
    if dtype in ("f32", "i32", "bf16"):
        yield layouts(values, dtype, number + 3)
    if dtype == "f32":
        yield layouts(values, dtype, number + 5)
        yield T(values, dtype, shape=[1, 1, 1])
        yield T(values, dtype, shape=[200_003])
    if dtype in FLOATS:
        yield T(noise(dtype, 61, number, 3.0), dtype, shape=[1009])


def make():
    group = Group("elementwise")
    number = 0
    for op in EXACT_OPS + LOGIC_OPS + ["bitwise_not"] + list(EXACT):
        for dtype in ALL:
            number += 1
            if op == "bitwise_not" and dtype in FLOATS or op == "neg" and dtype == "bool":
                group.add(op, [T(corners(dtype), dtype)], None)
                continue
            if dtype == "bool" and op in EXACT_OPS or op in ("silu", "gelu_erf", "gelu_tanh") and dtype not in FLOATS:
                continue
            for x in operands(op, dtype, number):
                if op in EXACT:
                    pattern, result, ulps, absolute = float_function(op, x.pattern, dtype)
                else:
                    (pattern, result), ulps, absolute = exact_function(op, x.pattern, dtype), 0, 0.0
                torch_agrees(op, T(x.pattern, dtype), pattern, dtype, absolute)
                # Values follow their elements through any view.
                held = T(pattern, result, x.steps, x.shape)
                if x.steps:
                    out = O(held.value, result)
                else:
                    out = O(pattern, result, x.shape)
                name, attrs = ("gelu", {"approximate": op[5:]}) if op.startswith("gelu") else (op, None)
                zeros = int(op not in ("relu", "relu2", "sign"))
                group.add(name, [x], [out], attrs, ulps=ulps, absolute=absolute, zeros=zeros)
    return group
