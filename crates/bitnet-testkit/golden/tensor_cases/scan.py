"""Running sums and products."""

import numpy as np

from .common import *
from .reduce import convert, finite_size, wide


def running(x, axis, op, result):
    """Exact for integers; floats in extended precision."""
    x = np.moveaxis(x, axis, -1) if x.ndim else x.reshape(1)
    if result in FLOATS:
        f = np.cumsum if op == "cumsum" else np.cumprod
        out = f(x.astype(np.longdouble), axis=-1).astype(np.float64)
    else:
        out = np.empty(x.shape, object)
        for at in np.ndindex(x.shape[:-1]):
            value = 0 if op == "cumsum" else 1
            for k, v in enumerate(x[at]):
                value = wrap(value + int(v) if op == "cumsum" else value * int(v), result)
                out[at + (k,)] = value
    return convert(out, result)


def make():
    group = Group("scan")
    number = 0
    for op in ("cumsum", "cumprod"):
        for dtype in ALL:
            number += 1
            a = noise(dtype, 60, number)
            operands = [
                (T(a, dtype, shape=[3, 4, 5]), 1), (T(a, dtype, shape=[3, 4, 5]), -1), (T(a, dtype, shape=[12]), 0),
                (T(a, dtype, [["permute", [1, 0]]], [6, 10]), 0), (T(a, dtype, [["flip", [0]]], [20]), 0),
                (T(a, dtype, [["expand", [4, 6]]], [6]), 0), (T(a, dtype, [["unfold", 0, 6, 3]], [24]), 1),
                (T(a[:0], dtype, shape=[0, 3]), 0), (T(a[:0], dtype, shape=[3, 0]), 0), (T(a[0], dtype, shape=[]), 0),
            ]
            if dtype in ("f32", "bf16", "i32") and op == "cumsum":
                operands += [(T(a, dtype, shape=[3001]), 0), (T(a, dtype, shape=[29, 67]), 0), (T(a, dtype, shape=[29, 67]), 1)]
            if dtype in FLOATS:
                values = rounded(np.array([1, math.nan, 2, 1, math.inf, 1, -math.inf, 3, 2, -0.0, 1, 5.0]), dtype)
                operands.append((T(values, dtype, shape=[4, 3]), 1))
            elif dtype != "bool":
                operands.append((T(np.array([bounds(dtype)[1]] * 5, NUMPY[dtype]), dtype), 0))
            for x, axis in operands:
                result = wide(dtype)
                out = running(x.value, axis if x.value.ndim else 0, op, result)
                out = np.moveaxis(out, -1, axis) if x.value.ndim else out.reshape(())
                length = x.value.shape[axis] if x.value.ndim else 1
                ulps, absolute = 0, 0.0
                if dtype in FLOATS:
                    half = dtype in ("f16", "bf16")
                    size = finite_size(x.value)
                    ulps = 1 if half or op == "cumsum" else length
                    absolute = 4 * (EPS["f32"] if half else EPS[dtype]) * size.max(initial=0) * length if op == "cumsum" else 0.0
                group.add(op, [x], [O(out, result)], {"axis": axis}, ulps=ulps, absolute=absolute)
            group.add(op, [T(a, dtype, shape=[3, 4])], None, {"axis": 2})
    return group
