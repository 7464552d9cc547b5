"""Arithmetic of two operands of one dtype, and of three."""

import numpy as np
import torch

from .arithmetic import *
from .common import *


def pairs(op, dtype, number):
    values = corners(dtype, small=True)
    n = len(values)
    other = values
    if op in DIVIDES and dtype in INTS:
        other = values[values != 0]
    if op in SHIFTS and dtype in INTS:
        other = np.array([v for v in (0, 1, 3, bits(dtype) - 1, bits(dtype), bits(dtype) + 1, -1, 100) if bounds(dtype)[0] <= v <= bounds(dtype)[1]], NUMPY[dtype])
    # Every corner with every corner: a column and a row.
    yield T(values, dtype, [["unsqueeze", 1]]), T(other, dtype)
    ordinary = noise(dtype, 35, number, 4.0)
    divisor = noise(dtype, 41, number + 1, 4.0)
    if op in DIVIDES + SHIFTS + ["pow"] and dtype in INTS:
        divisor = np.array([1 + v % 5 for v in range(41)], NUMPY[dtype])
    if op == "pow" and dtype in FLOATS:
        ordinary = np.abs(ordinary)
    # Layouts of both sides, shapes equal and broadcast.
    yield layouts(ordinary, dtype, 0), T(divisor, dtype, [["flip", [1]]], [7, 5])
    yield T(ordinary, dtype, [["permute", [1, 0]], ["unsqueeze", 1]], [4, 3]), T(divisor, dtype, [["unfold", 0, 4, 1]], [5])
    # No dimension, no elements.
    yield T(ordinary[3], dtype, shape=[]), T(divisor[4], dtype, shape=[])
    if number % 2:
        yield T(ordinary[:0], dtype, shape=[2, 0]), T(divisor, dtype, shape=[1, 1])
    if dtype in ("f32", "i32", "u8", "bf16"):
        yield T(ordinary, dtype, shape=[1013]), T(divisor, dtype, shape=[1013])
        yield T(ordinary, dtype, [["expand", [29, 35]]], [35]), T(divisor, dtype, [["permute", [1, 0]]], [35, 29])
    if dtype == "f32":
        yield T(ordinary[:5], dtype, shape=[40_001, 5]), T(divisor, dtype, shape=[5])


def ternary(group, dtype, number):
    """clamp, lerp, addcmul."""
    values = corners(dtype)
    operands = [T(values, dtype), layouts(values, dtype, number), T(values[1], dtype, shape=[]), T(values[:0], dtype)]
    limits = [(0, 2), (2, None), (None, 1), (5, 2)] if dtype != "bool" else []
    for x in operands:
        for low, high in limits:
            low_, high_ = (float(v) if v is not None and dtype in FLOATS else v for v in (low, high))
            wide = x.value.astype(np.float32) if dtype == "f16" else x.value
            out = wide if low is None else np.where(np.isnan(wide) if dtype in FLOATS else False, wide, np.maximum(wide, low))
            out = out if high is None else np.where(np.isnan(out) if dtype in FLOATS else False, out, np.minimum(out, high))
            if dtype in FULL:
                assert np.array_equal(torch.clamp(x.torch(), low, high).to(torch.float64).numpy(), out.astype(np.float64), equal_nan=dtype in FLOATS)
            group.add("clamp", [x, S(low_) if low is not None else S(False), S(high_) if high is not None else S(False)], [O(out, dtype)], {"low": low is not None, "high": high is not None})
    if dtype in FLOATS:
        half = dtype in ("f16", "bf16")
        a, b, w = (noise(dtype, 24, number + k) for k in range(3))
        for x, y, weight in [
            (T(a, dtype), T(b, dtype), S(0.25)), (T(a, dtype, [["permute", [1, 0]]], [4, 6]), T(b, dtype, [["flip", [1]]], [6, 4]), S(0.75)),
            (T(a, dtype), T(b, dtype), T(w, dtype)), (T(a, dtype, shape=[3, 1, 4]), T(b, dtype, shape=[5, 1]), T(w, dtype, shape=[4])),
            (T(a[:0], dtype), T(b[:0], dtype), S(0.5)), (T(a, dtype, shape=[1009]), T(b, dtype, shape=[1009]), S(0.5)),
        ]:
            p, q = x.value.astype(np.float64), y.value.astype(np.float64)
            t = np.float64(weight.value) if isinstance(weight, S) else weight.value.astype(np.float64)
            out = p + t * (q - p)
            absolute = (EPS["f32"] if half else 2 * EPS[dtype]) * (np.abs(p).max(initial=0) + np.abs(t).max(initial=0) * np.abs(q).max(initial=0) + 1)
            group.add("lerp", [x, y, weight], [O(rounded(out, dtype), dtype)], ulps=1, absolute=absolute)
    if dtype == "bool":
        return
    a, b, c = (noise(dtype, 24, number + k + 5) for k in range(3))
    for x, y, z, value in [
        (T(a, dtype), T(b, dtype), T(c, dtype), 1), (T(a, dtype, shape=[3, 1, 4]), T(b, dtype, shape=[5, 1]), T(c, dtype, shape=[4]), 2),
        (T(a, dtype, [["permute", [1, 0]]], [4, 6]), T(b, dtype, [["flip", [1]]], [6, 4]), T(c, dtype, [["expand", [6, 4]]], [4]), 3),
        (T(a[:0], dtype), T(b, dtype, shape=[1]), T(c, dtype, shape=[1]), 1),
    ]:
        scalar = S(float(value) if dtype in FLOATS else value)
        if dtype in FLOATS:
            p, q, r = (v.value.astype(np.float64) for v in (x, y, z))
            out = rounded(p + value * q * r, dtype)
            size = np.abs(p).max(initial=0) + value * np.abs(q).max(initial=0) * np.abs(r).max(initial=0)
            absolute = size * (EPS["f32"] if dtype in ("f16", "bf16") else 2 * EPS[dtype])
            group.add("addcmul", [x, y, z, scalar], [O(out, dtype)], ulps=1, absolute=absolute)
        else:
            p, q, r = (v.value.astype(object) for v in (x, y, z))
            exact = np.asarray(p + value * q * r, object)
            out = np.array([wrap(v, dtype) for v in exact.flat], NUMPY[dtype]).reshape(exact.shape)
            group.add("addcmul", [x, y, z, scalar], [O(out, dtype)])


def make():
    group = Group("binary")
    number = 0
    for op in PLAIN + ["div", "pow", "atan2"] + DIVIDES + BITS + SHIFTS:
        for dtype in ALL:
            number += 1
            if dtype == "bool" and op == "atan2":
                continue
            if op in BITS + SHIFTS and dtype in FLOATS or dtype == "bool" and op in SHIFTS + DIVIDES + ["sub", "pow"]:
                group.add(op, [T(corners(dtype), dtype), T(corners(dtype), dtype)], None)
                continue
            for x, y in pairs(op, dtype, number):
                if op == "floor_div" and dtype in ("f16", "bf16"):
                    # PyTorch divides in the narrow dtype's own way; ours is the f32 quotient rounded once.
                    add_binary(group, op, x, y, check=False)
                    continue
                add_binary(group, op, x, y)
            if op in DIVIDES and dtype in INTS:
                group.add(op, [T(corners(dtype), dtype), T(np.array([1, 0], dtype=NUMPY[dtype])[1], dtype, shape=[])], None)
                group.add(op, [T(corners(dtype), dtype), S(0)], None)
            if op in PLAIN + DIVIDES and dtype != "bool":
                group.add(op, [T(noise(dtype, 6, 1), dtype, shape=[2, 3]), T(noise(dtype, 4, 1), dtype, shape=[4])], None)
    for dtype in ALL:
        number += 1
        ternary(group, dtype, number)
    return group
