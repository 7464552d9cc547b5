"""Functions of two numbers and promotion of dtypes, as PyTorch defines them."""

import math

import mpmath
import numpy as np
import torch

from .common import *

mp = mpmath.mp

COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
LOGICAL = {"logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor}
SHIFTS = ["bitwise_left_shift", "bitwise_right_shift"]
BITS = ["bitwise_and", "bitwise_or", "bitwise_xor"]
DIVIDES = ["floor_div", "remainder"]
PLAIN = ["add", "sub", "mul", "minimum", "maximum"]
TORCH_NAME = {"floor_div": "floor_divide"}


def promote(a, b):
    """PyTorch's table; u16, u32 and u64 with signed integers go to the next larger signed one, u64 nowhere."""
    if a == b:
        return a
    if a in FLOATS or b in FLOATS:
        floats = [x for x in (a, b) if x in FLOATS]
        if len(floats) == 1:
            return floats[0]
        if "f64" in floats:
            return "f64"
        return "f32"
    if a == "bool" or b == "bool":
        return b if a == "bool" else a
    if a[0] == b[0]:
        return a if bits(a) > bits(b) else b
    unsigned, signed = (a, b) if a[0] == "u" else (b, a)
    if bits(signed) > bits(unsigned):
        return signed
    return None if unsigned == "u64" else f"i{2 * bits(unsigned)}"


for one in FULL:
    for other in FULL:
        assert TORCH[promote(one, other)] == torch.promote_types(TORCH[one], TORCH[other])

RANK = {"bool": 0, "int": 1, "float": 2}


def category(dtype):
    return "float" if dtype in FLOATS else "bool" if dtype == "bool" else "int"


def result_type(*operands):
    """Tensors of no dimension and scalars count only where their kind of number is a higher one."""
    tiers = [None, None, None]
    for x in operands:
        if isinstance(x, S):
            tier, dtype = 2, {"bool": "bool", "int": "i64", "float": "f32"}[x.kind]
        else:
            tier, dtype = (0 if x.value.ndim else 1), x.dtype
        tiers[tier] = dtype if tiers[tier] is None else promote(tiers[tier], dtype)
        if tiers[tier] is None:
            return None
    result = tiers[0]
    for lower in tiers[1:]:
        if lower is None:
            continue
        if result is None or RANK[category(lower)] > RANK[category(result)]:
            result = lower
    return result


def float_pair(op, x, y):
    """At two finite or special numbers, rounded to f64."""
    x, y = float(x), float(y)
    if op == "pow":
        if x == 0 or y == 0 or not (math.isfinite(x) and math.isfinite(y)):
            return float(np.float_power(x, y))
        if x < 0 and y != math.floor(y):
            return math.nan
        size = y * math.log2(abs(x)) if abs(x) != 1 else 0
        if abs(size) > 3000:
            negative = x < 0 and math.fmod(y, 2) != 0
            return math.copysign(math.inf if size > 0 else 0.0, -1 if negative else 1)
        if abs(y) > 1e15:
            odd = x < 0 and math.fmod(y, 2) != 0
            value = mp.exp(mp.mpf(y) * mp.log(abs(mp.mpf(x))))
            value = -value if odd else value
        else:
            value = mp.power(mp.mpf(x), mp.mpf(y))
        return nearest(value)
    special = x == 0 or y == 0 or not (math.isfinite(x) and math.isfinite(y))
    return math.atan2(x, y) if special else nearest(mp.atan2(mp.mpf(x), mp.mpf(y)))


def int_pair(op, a, b, dtype):
    """At two integers; None where PyTorch raises."""
    if op in DIVIDES and b == 0:
        return None
    width = 8 if dtype == "bool" else bits(dtype)
    outside = not 0 <= b < width if op in SHIFTS else False
    f = {
        "add": lambda: a + b, "sub": lambda: a - b, "mul": lambda: a * b, "minimum": lambda: min(a, b),
        "maximum": lambda: max(a, b), "floor_div": lambda: a // b, "remainder": lambda: a % b,
        "bitwise_and": lambda: a & b, "bitwise_or": lambda: a | b, "bitwise_xor": lambda: a ^ b,
        "bitwise_left_shift": lambda: 0 if outside else a << b,
        "bitwise_right_shift": lambda: (-1 if a < 0 else 0) if outside else a >> b,
        "pow": lambda: int_pow(a, b, width),
    }[op]
    return wrap(f(), dtype)


def int_pow(a, b, width):
    if b >= 0:
        return pow(a, b, 2**width)
    return a ** (-b) if a in (1, -1) else 0


def binary(op, a, b, dtype):
    """`op` of arrays already cast to `dtype` and broadcast: values, dtype of the result, ulps; values None where an error is due."""
    if op in COMPARE:
        return COMPARE[op](a, b), "bool", 0
    if op in LOGICAL:
        return LOGICAL[op](a != 0, b != 0), "bool", 0
    if dtype in FLOATS:
        half = dtype in ("f16", "bf16")
        wide = (lambda v: v.astype(np.float32)) if half else (lambda v: v)
        a, b = wide(a), wide(b)
        if op in ("pow", "atan2"):
            pairs = zip(np.broadcast_to(a, np.broadcast_shapes(a.shape, b.shape)).flat, np.broadcast_to(b, np.broadcast_shapes(a.shape, b.shape)).flat)
            values = np.array([float_pair(op, x, y) for x, y in pairs], np.float64)
            return rounded(values.reshape(np.broadcast_shapes(a.shape, b.shape)), dtype), dtype, 1 if half else 4
        if op == "remainder":
            return rounded(np.remainder(a, b), dtype), dtype, 0
        if op == "floor_div":
            f = torch.floor_divide
            values = f(torch.from_numpy(np.array(a)), torch.from_numpy(np.array(b))).numpy()
            return rounded(values, dtype), dtype, 0
        f = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "minimum": np.minimum, "maximum": np.maximum}
        return rounded(f[op](a, b), dtype), dtype, 0
    if dtype == "bool":
        f = {
            "add": np.logical_or, "mul": np.logical_and, "minimum": np.logical_and, "maximum": np.logical_or,
            "bitwise_and": np.logical_and, "bitwise_or": np.logical_or, "bitwise_xor": np.logical_xor,
        }.get(op)
        return (None, dtype, 0) if f is None else (f(a, b), dtype, 0)
    shape = np.broadcast_shapes(a.shape, b.shape)
    pairs = zip(np.broadcast_to(a, shape).flat, np.broadcast_to(b, shape).flat)
    values = [int_pair(op, int(x), int(y), dtype) for x, y in pairs]
    if None in values:
        return None, dtype, 0
    return np.array(values, NUMPY[dtype]).reshape(shape), dtype, 0


def cast(values, source, target):
    """As the primitive `cast`: integers wrap among each other, floats round."""
    values = np.asarray(values)
    if target == "bool":
        return values != 0
    if target in FLOATS:
        return rounded(values.astype(np.float64) if target == "f64" else values.astype(np.float32), target) if target != "f16" else values.astype(np.float32).astype(np.float16)
    return values.astype(NUMPY[target])


def operand(x, dtype):
    if isinstance(x, S):
        if dtype in INTS:
            return np.array(wrap(x.value, dtype), NUMPY[dtype])
        if dtype == "bool":
            return np.array(bool(x.value))
        return rounded(np.float64(x.value), dtype)
    return cast(x.value, x.dtype, dtype)


def add_binary(group, op, x, y, zeros=None, check=True):
    """Adds a case of `x op y`, held against PyTorch where it has the dtypes."""
    dtype = result_type(x, y)
    if zeros is None:
        zeros = int(op in ("add", "sub", "mul", "div", "pow", "atan2"))
    if dtype is None:
        return group.add(op, [x, y], None)
    if op in LOGICAL:
        a, b = (np.asarray(operand(v, v.dtype if isinstance(v, T) else "f64")) for v in (x, y))
    else:
        # Quotients of integers are taken in f32, to which each operand goes by itself.
        common = "f32" if op in ("div", "atan2") and dtype not in FLOATS else dtype
        a, b = operand(x, common), operand(y, common)
        dtype = common
    invalid = op in SHIFTS + BITS and dtype in FLOATS or dtype == "bool" and op in SHIFTS + DIVIDES + ["sub", "pow"]
    if op == "pow" and isinstance(y, S) and y.kind == "int" and y.value < 0 and dtype in INTS:
        invalid = True
    if invalid:
        return group.add(op, [x, y], None)
    values, result, ulps = binary(op, a, b, dtype)
    if values is None:
        return group.add(op, [x, y], None)
    values = np.asarray(values)
    group.add(op, [x, y], [O(values, result)], ulps=ulps, zeros=zeros)
    if check:
        torch_agrees(op, x, y, values, result)


def torch_agrees(op, x, y, values, result):
    operands = [v.value if isinstance(v, S) else v.torch() for v in (x, y)]
    if any(isinstance(v, T) and v.dtype not in FULL for v in (x, y)) or not any(isinstance(v, T) for v in (x, y)):
        return
    if op in DIVIDES and result in INTS and isinstance(operands[1], torch.Tensor) and result in SIGNED:
        # INT_MIN / -1 traps there.
        if (operands[0] == bounds(result)[0]).any() if isinstance(operands[0], torch.Tensor) else operands[0] == bounds(result)[0]:
            return
    try:
        got = getattr(torch, TORCH_NAME.get(op, op))(*operands)
    except (TypeError, NotImplementedError) as error:
        print(f"torch refuses {op}: {str(error)[:90]}")
        return
    assert NAME[got.dtype] == result, (op, got.dtype, result, x, y)
    assert list(got.shape) == list(values.shape), (op, got.shape, values.shape)
    if result in FLOATS:
        got, values = got.to(torch.float64).numpy(), values.astype(np.float64)
        largest = {"f16": 6e4, "bf16": 3e38, "f32": 3e38, "f64": 1e308}[result]
        near = np.isclose(got, values, rtol=4 * EPS[result] + 1e-6, atol=1e-37 if result != "f16" else 1e-7, equal_nan=True)
        near |= np.isinf(got) & (np.abs(values) > largest)
        near |= np.isinf(values) & (np.abs(got) > largest)
        if op == "remainder":
            # Where the quotient overflows PyTorch gives NaN, though the remainder is a number.
            near |= np.isnan(got) & np.isfinite(values)
        assert near.all(), (op, result, got[~near], values[~near])
    else:
        assert np.array_equal(got.numpy(), values), (op, result, got, values)
