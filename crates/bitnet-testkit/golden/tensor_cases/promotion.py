"""Operands of different dtypes, tensors of no dimension, scalars; casts between all dtypes."""

import numpy as np
import torch

from .arithmetic import *
from .common import *


def saturated(values, target):
    """Floats to integers: truncated, limited to the range, NaN gives 0. PyTorch leaves those undefined."""
    low, high = bounds(target)
    out = [0 if math.isnan(v) else low if v <= low else high if v >= high else int(v) for v in values.astype(np.float64).flat]
    return np.array(out, NUMPY[target]).reshape(values.shape)


def casts(group):
    for number, source in enumerate(ALL):
        values = corners(source)
        for target in ALL:
            if source in FLOATS and target in INTS:
                convert = lambda v: saturated(v, target)
            else:
                convert = lambda v: cast(v, source, target)
            for x in [T(values, source), layouts(values, source, number), T(values[0], source, shape=[]), T(values[:0], source, shape=[2, 0])]:
                group.add("to_dtype", [x], [O(convert(x.value), target)], {"dtype": target}, zeros=1)
            x = T(values, source, shape=[1021])
            group.add("to_dtype", [x], [O(convert(x.pattern), target, [1021])], {"dtype": target}, zeros=1)


def make():
    group = Group("promotion")
    ordinary = np.array([1, 2, 3, 5, 7, 100])
    for a in ALL:
        for b in ALL:
            x, y = T(ordinary[:5], a), T(ordinary[1:6], b)
            add_binary(group, "add", x, y)
            add_binary(group, "mul", x, T(ordinary[3], b, shape=[]))
            if a != b:
                add_binary(group, "div", T(ordinary[2], a, shape=[]), y)
                add_binary(group, "maximum", T(ordinary[2], a, shape=[]), T(ordinary[4], b, shape=[]))
                add_binary(group, "lt", x, y)
        for scalar in (True, 3, -2, 2.5):
            for op in ("add", "mul", "div", "sub", "eq"):
                # Beyond the range of the dtype PyTorch compares with the wrapped scalar; it has no difference with a bool.
                if a[0] == "u" and scalar == -2 and op == "eq" or a == "bool" and op == "sub":
                    continue
                add_binary(group, op, T(ordinary[:5], a), S(scalar))
            add_binary(group, "add", T(ordinary[2], a, shape=[]), S(scalar))
        for op in ("sub", "floor_div", "remainder", "pow"):
            for scalar in (3, 2.5) if (a, op) != ("bool", "sub") else ():
                add_binary(group, op, T(ordinary[:5], a), S(scalar))
    casts(group)
    return group
