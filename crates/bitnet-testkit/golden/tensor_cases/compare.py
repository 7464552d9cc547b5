"""Comparisons, logic, closeness."""

import numpy as np

from .arithmetic import *
from .common import *


def close(group, dtype):
    inf, nan = math.inf, math.nan
    values = rounded(np.array([1.0, -2.0, 0.0, 100.0]), dtype)
    x = T(values, dtype)
    special = T(rounded(np.array([1.0, inf, -inf, nan]), dtype), dtype)
    step = 3 * EPS[dtype]
    for y, rtol, atol, equal_nan in [
        (T(values, dtype), 0.0, 0.0, False), (T(values * (1 + step), dtype), step / 8, 0.0, False),
        (T(values * (1 + step), dtype), 2 * step, 0.0, False), (T(values + 1, dtype), 0.0, 1.5, False),
        (T(values + 1, dtype), 0.0, 0.25, False), (T(values[0], dtype, shape=[]), 10.0, 200.0, False),
        (T(values[:0], dtype, shape=[0, 4]), 1e-5, 1e-8, False),
    ]:
        a, b = x.value.astype(np.float64), y.value.astype(np.float64)
        expected = bool(np.all(np.abs(a - b) <= atol + rtol * np.abs(b)))
        group.add("allclose", [x, y], [O(np.array(expected), "bool")], {"rtol": rtol, "atol": atol, "equal_nan": equal_nan})
    for equal_nan in (False, True):
        group.add("allclose", [special, special], [O(np.array(equal_nan), "bool")], {"rtol": 1e-5, "atol": 1e-8, "equal_nan": equal_nan})
    flipped = T(rounded(np.array([1.0, -inf, -inf, 2.0]), dtype), dtype)
    other = T(rounded(np.array([1.0, inf, -inf, 2.0]), dtype), dtype)
    group.add("allclose", [flipped, other], [O(np.array(False), "bool")], {"rtol": 1e-5, "atol": 1e-8, "equal_nan": False})


def make():
    group = Group("compare")
    number = 0
    for op in [*COMPARE, *LOGICAL]:
        for dtype in ALL:
            number += 1
            values = corners(dtype, small=True)
            ordinary = noise(dtype, 35, number, 1.0)
            add_binary(group, op, T(values, dtype, [["unsqueeze", 1]]), T(values, dtype))
            add_binary(group, op, layouts(ordinary, dtype, number), T(values[1], dtype, shape=[]))
            add_binary(group, op, T(ordinary, dtype, [["permute", [1, 0]]], [5, 7]), T(ordinary, dtype, [["flip", [0]]], [7, 5]))
            if number % 3 == 0:
                add_binary(group, op, T(ordinary[:0], dtype, shape=[0, 3]), T(ordinary, dtype, shape=[3]))
            if dtype in ("f32", "i8"):
                add_binary(group, op, T(ordinary, dtype, shape=[200_003] if op == "lt" else [1013]), T(ordinary[5], dtype, shape=[]))
            if dtype != "bool" and op in COMPARE:
                add_binary(group, op, T(ordinary, dtype), S(1.5 if dtype in FLOATS else 1))
    for dtype in ALL:
        values = corners(dtype)
        kept = values[~np.isnan(values)] if dtype in FLOATS else values
        for x, y in [(kept, kept), (values, values), (kept, np.flip(kept)), (kept[:0], kept[:0])]:
            group.add("equal", [T(x, dtype), T(y, dtype)], [O(np.array(bool(np.array_equal(x, y))), "bool")])
        group.add("equal", [T(kept, dtype), T(kept[:1], dtype)], [O(np.array(len(kept) == 1), "bool")])
    for dtype in FLOATS:
        close(group, dtype)
    return group
