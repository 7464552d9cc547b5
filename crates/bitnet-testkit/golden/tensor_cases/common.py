"""What all groups of cases share: dtypes, operands with their views, rounding, and the file format.

A file is one gzipped JSON object {"data": [...], "cases": [...]}.
  data:  {"t": dtype, "x": little-endian elements in hex, "n": count}; the elements repeat until there are n of them,
         so a tensor of 200,003 elements costs what its pattern of some dozen costs.
  case:  {"op", "a": attributes, "i": inputs, "o": outputs | "e": 1 where an error is due, "t": [ulps, absolute, zeros]}
  input: {"d": index into data, "s": shape of the storage, "v": view steps} | {"k": float|int|bool, "c": scalar}
         | {"l": [inputs]} (a list of tensors)
  view:  ["permute", axes] ["slice", axis, start, end, step] ["flip", axes] ["expand", dims] ["unfold", axis, size, step]
         ["unsqueeze", axis] ["narrow", axis, start, length] ["select", axis, i] ["diagonal", offset, a, b]
  output: {"d": index, "s": shape}
An output agrees when it has the dtype and shape and each element is within `ulps` units of the last place of its dtype, or
within `absolute`; NaN agrees with NaN only. With `zeros` 1 the sign of a zero counts.
"""

import gzip
import json
import math

import mpmath
import numpy as np
import torch

mpmath.mp.prec = 140
np.seterr(all="ignore")

FLOATS = ["f64", "f32", "f16", "bf16"]
SIGNED = ["i8", "i16", "i32", "i64"]
UNSIGNED = ["u8", "u16", "u32", "u64"]
INTS = SIGNED + UNSIGNED
ALL = FLOATS + INTS + ["bool"]
NUMPY = {
    "f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": np.float32, "bool": np.bool_,
    **{f"{k}{b}": np.dtype(f"{n}{b}").type for k, n in (("i", "int"), ("u", "uint")) for b in (8, 16, 32, 64)},
}
TORCH = {
    "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "bool": torch.bool,
    "i8": torch.int8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64, "u8": torch.uint8,
    "u16": torch.uint16, "u32": torch.uint32, "u64": torch.uint64,
}
NAME = {v: k for k, v in TORCH.items()}
# Where PyTorch computes as in its other dtypes.
FULL = set(ALL) - {"u16", "u32", "u64"}
EPS = {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}


def bits(dtype):
    return int(dtype[1:])


def bounds(dtype):
    if dtype[0] == "u":
        return 0, 2 ** bits(dtype) - 1
    return -(2 ** (bits(dtype) - 1)), 2 ** (bits(dtype) - 1) - 1


def wrap(value, dtype):
    low, _ = bounds(dtype)
    return (int(value) - low) % 2 ** bits(dtype) + low


def to_bf16(values):
    """float32 rounded to bfloat16, ties to even, held as float32."""
    x = np.array(values, np.float32)
    return torch.from_numpy(np.ascontiguousarray(x)).to(torch.bfloat16).to(torch.float32).numpy().reshape(x.shape)


def rounded(values, dtype):
    """Numbers rounded to a dtype; bf16 is held as float32."""
    if dtype == "bf16":
        return to_bf16(values)
    return np.asarray(values).astype(NUMPY[dtype])


def encode(values, dtype):
    values = np.ascontiguousarray(values)
    if dtype == "bf16":
        raw = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        nan = np.isnan(values)
        raw[nan] = 0x7FC0
        return raw.tobytes().hex()
    return values.astype(NUMPY[dtype]).tobytes().hex()


def apply(array, steps):
    for step in steps:
        name, *args = step
        if name == "permute":
            array = array.transpose(args[0])
        elif name == "slice":
            axis, start, end, stride = args
            array = array[(slice(None),) * axis + (slice(start, end, stride),)]
        elif name == "narrow":
            axis, start, length = args
            array = array[(slice(None),) * axis + (slice(start, start + length),)]
        elif name == "flip":
            array = np.flip(array, args[0])
        elif name == "expand":
            array = np.broadcast_to(array, args[0])
        elif name == "unfold":
            axis, size, stride = args
            array = np.lib.stride_tricks.sliding_window_view(array, size, axis)
            array = array[(slice(None),) * axis + (slice(None, None, stride),)]
        elif name == "unsqueeze":
            array = np.expand_dims(array, args[0])
        elif name == "select":
            array = np.take(array, args[1], args[0])
        elif name == "diagonal":
            array = np.diagonal(array, *args)
        else:
            raise KeyError(name)
    return array


def nearest(value):
    """An mpmath number as f64, rounded to the nearest; infinity beyond."""
    try:
        return mpmath.libmp.to_float(value._mpf_, rnd="n")
    except OverflowError:
        return math.inf * float(mpmath.sign(value))


class T:
    """A tensor operand: a pattern repeated over a storage of some shape, seen through view steps."""

    def __init__(self, values, dtype, steps=(), shape=None):
        values = rounded(values, dtype)
        self.dtype, self.steps = dtype, [list(s) for s in steps]
        self.shape = list(values.shape if shape is None else shape)
        self.pattern = values.reshape(-1)
        count = math.prod(self.shape)
        base = np.resize(self.pattern, count) if self.pattern.size else np.zeros(0, NUMPY[dtype])
        self.value = apply(base.reshape(self.shape), self.steps)

    def torch(self, dtype=None):
        array = np.array(self.value, order="C")
        return torch.from_numpy(array).to(TORCH[dtype or self.dtype])


class S:
    """A Python scalar."""

    def __init__(self, value):
        self.value = value
        self.kind = {bool: "bool", int: "int", float: "float"}[type(value)]


class O:
    """An expected output; `pattern` where it is larger than what it repeats."""

    def __init__(self, values, dtype, shape=None):
        values = np.asarray(values)
        self.dtype, self.pattern = dtype, rounded(values, dtype).reshape(-1)
        self.shape = list(values.shape if shape is None else shape)


class Group:
    def __init__(self, name):
        self.name, self.data, self.index, self.cases = name, [], {}, []

    def put(self, pattern, dtype, count):
        pattern = pattern[:count]
        key = (dtype, encode(pattern, dtype), count)
        if key not in self.index:
            self.index[key] = len(self.data)
            self.data.append({"t": dtype, "x": key[1], "n": count})
        return self.index[key]

    def operand(self, x):
        if isinstance(x, T):
            out = {"d": self.put(x.pattern, x.dtype, math.prod(x.shape)), "s": x.shape}
            return out | ({"v": x.steps} if x.steps else {})
        if isinstance(x, S):
            value = x.value
            if x.kind == "float" and not math.isfinite(value):
                value = repr(value)
            return {"k": x.kind, "c": value}
        return {"l": [self.operand(t) for t in x]}

    def add(self, op, inputs, outputs, attrs=None, ulps=0, absolute=0.0, zeros=0):
        case = {"op": op, "i": [self.operand(x) for x in inputs]}
        if attrs:
            case["a"] = attrs
        if outputs is None:
            case["e"] = 1
        else:
            case["o"] = [{"d": self.put(o.pattern, o.dtype, math.prod(o.shape)), "s": o.shape} for o in outputs]
            if ulps or absolute or zeros:
                case["t"] = [ulps, float(np.float32(absolute)), zeros]
        self.cases.append(case)

    def write(self, folder):
        text = json.dumps({"data": self.data, "cases": self.cases}, separators=(",", ":"), allow_nan=False)
        packed = gzip.compress(text.encode(), 9, mtime=0)
        (folder / f"{self.name}.json.gz").write_bytes(packed)
        return len(self.cases), len(packed)


def corners(dtype, small=False):
    """Values at which operations go wrong, for a dtype."""
    if dtype == "bool":
        return np.array([False, True])
    if dtype in FLOATS:
        limits = {
            "f64": (1.7976931348623157e308, 2.2250738585072014e-308, 5e-324),
            "f32": (3.4028234663852886e38, 1.1754943508222875e-38, 1e-45),
            "f16": (65504.0, 6.103515625e-05, 6e-8),
            "bf16": (3.3895313892515355e38, 1.1754943508222875e-38, 9.2e-41),
        }[dtype]
        inf, nan = math.inf, math.nan
        values = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, inf, -inf, nan, limits[0], limits[2], 3.25, -7.7]
        if not small:
            values += [-0.5, 1.5, 2.5, -limits[0], limits[1], -limits[2], 0.1, 0.9999, -0.3, 5.9, 11.3, -19.6, 87.4, -103.2]
            values += [1e-4, -3e-3, 1234.5, 30000.7, -0.6744, 3.14159265]
        return rounded(values, dtype)
    low, high = bounds(dtype)
    values = [0, 1, 2, 3, 7, low, high, high - 1, -1, -2, -7] + ([] if small else [5, 10, 100, -100, low + 1, 64, 31, -13])
    kept = [v for v in values if low <= v <= high]
    return np.array(list(dict.fromkeys(kept)), NUMPY[dtype])


def noise(dtype, count, seed, scale=1.0):
    """Ordinary numbers: normal for floats, small for integers."""
    rng = np.random.default_rng([seed, count])
    if dtype == "bool":
        return rng.integers(0, 2, count).astype(bool)
    if dtype in FLOATS:
        return rounded(rng.normal(size=count) * scale, dtype)
    low, high = bounds(dtype)
    return rng.integers(max(low, -20), min(high, 20) + 1, count).astype(NUMPY[dtype])


def layouts(values, dtype, which):
    """An operand of the pattern `values` in one of eight layouts."""
    return [
        lambda: T(values, dtype, [["permute", [1, 0]]], [5, 7]),
        lambda: T(values, dtype, [["flip", [0]]], [len(values)]),
        lambda: T(values, dtype, [["slice", 0, 1, 30, 3]], [31]),
        lambda: T(values, dtype, [["expand", [3, 9]]], [9]),
        lambda: T(values, dtype, [["unfold", 0, 5, 2]], [19]),
        lambda: T(values, dtype, [["permute", [2, 0, 1]], ["flip", [0, 2]], ["narrow", 1, 1, 2]], [3, 4, 5]),
        lambda: T(values, dtype, [["select", 1, 2], ["unsqueeze", 0]], [6, 4]),
        lambda: T(values, dtype, [["diagonal", 1, 0, 1]], [6, 6]),
    ][which % 8]()
