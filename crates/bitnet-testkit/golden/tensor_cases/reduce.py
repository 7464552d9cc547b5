"""Reductions over axes. Sums are exact (math.fsum), then rounded; a result may be off by 4 eps times the sum of magnitudes."""

import math

import numpy as np

from .common import *


def reduce(x, axes, f, keepdim):
    """`f` of the list of elements of each cell that remains."""
    axes = tuple(range(x.ndim)) if axes is None else tuple(a % x.ndim if x.ndim else 0 for a in axes)
    if x.ndim == 0:
        return np.asarray(f(x.reshape(1)))
    rest = [a for a in range(x.ndim) if a not in axes]
    lanes = x.transpose(rest + list(axes)).reshape([x.shape[a] for a in rest] + [math.prod(x.shape[a] for a in axes)])
    shape = lanes.shape[:-1]
    out = np.empty(shape, object)
    for at in np.ndindex(shape):
        out[at] = f(lanes[at])
    if keepdim:
        out = out.reshape([1 if a in axes else x.shape[a] for a in range(x.ndim)])
    return out


def fsum(v):
    values = [float(x) for x in v]
    if all(math.isfinite(x) for x in values):
        try:
            return math.fsum(values)
        except OverflowError:
            pass
    with np.errstate(all="ignore"):
        return float(np.sum(np.array(values, np.longdouble)))


def fprod(v):
    return float(np.prod(np.array(v, np.longdouble))) if len(v) else 1.0


def variance(v, correction):
    values = np.array(v, np.longdouble)
    if not len(values):
        return math.nan
    spread = ((values - values.mean()) ** 2).sum()
    degrees = max(0.0, len(values) - correction)
    return float(spread / np.longdouble(degrees))


def norm(v, p):
    a = np.abs(np.array(v, np.longdouble))
    if p == 0:
        return float((a != 0).sum())
    if math.isinf(p):
        return float(a.max() if p > 0 else a.min())
    return float((a**p).sum() ** (1 / np.longdouble(p)))


def logsumexp(v):
    a = np.array(v, np.longdouble)
    if not len(a):
        return -math.inf
    top = a.max()
    if not np.isfinite(top):
        return float(top)
    return float(top + np.log(np.exp(a - top).sum()))


def first(v, largest):
    """Position of the first of the largest or smallest; a NaN before all."""
    if v.dtype.kind == "f" and np.isnan(v).any():
        return int(np.isnan(v).argmax())
    return int(v.argmax() if largest else v.argmin())


def extreme(v, largest):
    return v[first(v, largest)]


def finite_size(x):
    a = np.abs(x.astype(np.float64))
    return a[np.isfinite(a)]


def inputs(dtype, number):
    """Operand, axes, keepdim."""
    a = noise(dtype, 60, number)
    base = T(a, dtype, shape=[3, 4, 5])
    yield base, None, False
    yield base, [0], False
    yield base, [-1], True
    yield base, [2, 0], bool(number % 2)
    yield T(a, dtype, [["permute", [2, 0, 1]]], [3, 4, 5]), [1], False
    yield T(a, dtype, [["flip", [0, 1]]], [6, 10]), [0], True
    yield [T(a, dtype, [["expand", [4, 6]]], [6]), T(a, dtype, [["unfold", 0, 6, 3]], [24])][number % 2], [1 - number // 2 % 2], False
    yield T(a[0], dtype, shape=[]), None, False
    yield T(a, dtype, shape=[1, 1, 7]), [0, 1], False
    if dtype in ("f32", "bf16", "i8", "f16"):
        yield T(a, dtype, shape=[5003]), None, False
        yield T(a, dtype, shape=[61, 37]), [0], False
        yield T(a, dtype, shape=[37, 61]), [1], False
    if dtype == "f32":
        yield T(a, dtype, shape=[17, 19, 23]), [1], False
        yield T(a, dtype, [["permute", [1, 0]]], [301, 33]), [1], False
        yield T(a, dtype, shape=[400, 501]), [-1], False
        yield T(a, dtype, shape=[200_003]), None, False


def empty(dtype):
    yield T(noise(dtype, 1, 0)[:0], dtype, shape=[0, 3]), None
    yield T(noise(dtype, 1, 0)[:0], dtype, shape=[0, 3]), [0]
    yield T(noise(dtype, 1, 0)[:0], dtype, shape=[0, 3]), [1]


def special(dtype):
    inf, nan = math.inf, math.nan
    rows = [[1, nan, 3], [inf, 2, -1], [-inf, inf, 0], [-inf, -inf, -inf], [0, -0.0, 0], [nan, nan, inf]]
    if dtype in FLOATS:
        yield T(rounded(np.array(rows), dtype), dtype), [1], False
    elif dtype != "bool":
        low, high = bounds(dtype)
        yield T(np.array([[low, high, 1], [high, high, high], [2, 2, 0]], NUMPY[dtype]), dtype), [1], False


def wide(dtype):
    return dtype if dtype in FLOATS else "u64" if dtype == "u64" else "i64"


def total(values, dtype):
    return wrap(sum(int(v) for v in values), dtype)


def product(values, dtype):
    return wrap(math.prod(int(v) for v in values), dtype)


def axes_attr(axes, keepdim):
    return {"axes": axes, "keepdim": keepdim}


def one(group, op, x, axes, keepdim):
    v, dtype = x.value, x.dtype
    attrs = axes_attr(axes, keepdim)
    lane = max(1, v.size // max(1, reduce(v, axes, len, False).size))
    floats = dtype in FLOATS
    # One unit for the rounding of the result, the rest from what was accumulated in f32 or f64.
    eps = (EPS["f32"] if dtype in ("f16", "bf16") else EPS[dtype]) if floats else 0
    size = finite_size(v)
    if op in ("sum", "mean"):
        if op == "mean":
            out = reduce(v, axes, lambda l: fsum(l) / len(l) if len(l) else math.nan, keepdim)
        elif floats:
            out = reduce(v, axes, fsum, keepdim)
        else:
            out = reduce(v, axes, lambda l: total(l, wide(dtype)), keepdim)
        result = wide(dtype)
        magnitude = np.where(np.isfinite(v), np.abs(v), 0).astype(np.float64) if floats else np.zeros(1)
        sums = reduce(magnitude, axes, fsum, keepdim) if floats else np.zeros(0)
        absolute = 4 * eps * float(max(sums.flat, default=0)) / (1 if op == "sum" else lane)
        group.add(op, [x], [O(convert(out, result), result)], attrs, ulps=int(floats), absolute=absolute)
    elif op == "prod":
        f = fprod if floats else lambda l: product(l, wide(dtype))
        out = reduce(v, axes, f, keepdim)
        ulps = 0 if not floats else 1 if dtype in ("f16", "bf16") else lane
        group.add(op, [x], [O(convert(out, wide(dtype)), wide(dtype))], attrs, ulps=ulps)
    elif op in ("amax", "amin"):
        out = reduce(v, axes, lambda l: extreme(l, op == "amax"), keepdim)
        group.add(op, [x], [O(convert(out, dtype), dtype)], attrs)
    elif op in ("any", "all"):
        out = reduce(v, axes, lambda l: bool((l != 0).any() if op == "any" else (l != 0).all()), keepdim)
        group.add(op, [x], [O(out.astype(bool), "bool")], attrs)
    elif op == "count_nonzero":
        out = reduce(v, axes, lambda l: int((l != 0).sum()), False)
        group.add(op, [x], [O(out.astype(np.int64), "i64")], axes_attr(axes, False))
    elif op in ("var", "std"):
        for correction in (1.0, 0.0, 2.0):
            out = reduce(v, axes, lambda l: variance(l, correction), keepdim).astype(np.float64)
            out = np.sqrt(out) if op == "std" else out
            largest = np.abs(out[np.isfinite(out)]).max(initial=0)
            group.add(op, [x], [O(rounded(out, dtype), dtype)], attrs | {"correction": correction}, ulps=8 if eps == EPS[dtype] else 1, absolute=8 * eps * largest)
    elif op == "norm":
        for p in (2.0, 1.0, math.inf, -math.inf, 0.0, 3.0):
            out = reduce(v, axes, lambda l: norm(l, p), keepdim)
            ulps = (0 if math.isinf(p) or p == 0 else 4 + lane // 8 if p in (1, 2) else 16) if eps == EPS[dtype] else 1
            group.add(op, [x], [O(convert(out, dtype), dtype)], attrs | {"p": repr(p)}, ulps=ulps)
    elif op == "logsumexp":
        out = convert(reduce(v, axes, logsumexp, keepdim), dtype)
        group.add(op, [x], [O(out, dtype)], attrs, ulps=1 if eps != EPS[dtype] else 4, absolute=4 * eps * (1 + size.max(initial=0)))


def convert(out, dtype):
    out = np.asarray(out)
    if dtype in FLOATS:
        return rounded(out.astype(np.float64), dtype)
    return out.astype(NUMPY[dtype])


def positions(group, op, x, axes, keepdim):
    """argmax and argmin take one axis or all; max and min one axis."""
    if axes is not None and len(axes) > 1:
        return
    largest, v = op in ("max", "argmax"), x.value
    if op in ("argmax", "argmin"):
        out = reduce(v, axes, lambda l: first(l, largest), keepdim)
        group.add(op, [x], [O(convert(out, "i64"), "i64")], {"axis": axes[0] if axes else None, "keepdim": keepdim})
    elif axes is not None and v.ndim:
        values = convert(reduce(v, axes, lambda l: extreme(l, largest), keepdim), x.dtype)
        indices = convert(reduce(v, axes, lambda l: first(l, largest), keepdim), "i64")
        group.add(op, [x], [O(values, x.dtype), O(indices, "i64")], {"axis": axes[0], "keepdim": keepdim})


FLOAT_ONLY = ["mean", "var", "std", "norm", "logsumexp"]


def make():
    group = Group("reduce")
    number = 0
    for op in ["sum", "prod", "amax", "amin", "any", "all", "count_nonzero", *FLOAT_ONLY, "max", "min", "argmax", "argmin"]:
        for dtype in FLOATS if op in FLOAT_ONLY else ALL:
            number += 1
            if dtype == "bool" and op in ("max", "min", "argmax", "argmin"):
                continue
            add = positions if op in ("max", "min", "argmax", "argmin") else one
            for x, axes, keepdim in inputs(dtype, number):
                if op in ("var", "norm") and x.value.size > 6000 or op == "prod" and x.value.size > 1000:
                    continue
                add(group, op, x, axes, keepdim)
            for x, axes, keepdim in special(dtype):
                if op not in ("norm", "std"):
                    add(group, op, x, axes, keepdim)
            for x, axes in empty(dtype):
                lane = 0 if axes in (None, [0]) else 3
                if lane == 0 and op in ("amax", "amin", "max", "min", "argmax", "argmin"):
                    attrs = axes_attr(axes, False) if op[0] == "a" and op[1] == "m" else {"axis": axes[0] if axes else None, "keepdim": False}
                    if op not in ("max", "min") or axes is not None:
                        group.add(op, [x], None, attrs)
                elif op == "norm":
                    out = np.zeros(() if axes is None else (3,) if axes == [0] else (0,))
                    group.add(op, [x], [O(out, dtype)], axes_attr(axes, False) | {"p": "2.0"})
                else:
                    add(group, op, x, axes, False)
            if op in ("sum", "amax", "all"):
                group.add(op, [T(noise(dtype, 6, 1), dtype, shape=[2, 3])], None, axes_attr([2], False))
                group.add(op, [T(noise(dtype, 6, 1), dtype, shape=[2, 3])], None, axes_attr([-3], False))
                group.add(op, [T(noise(dtype, 6, 1), dtype, shape=[2, 3])], None, axes_attr([0, -2], False))
    # A mean far from zero: the variance must not be lost in it.
    far = 1e4 + np.random.default_rng(5).normal(size=200)
    for dtype in ("f32", "f64"):
        x = T(far, dtype, shape=[2, 100])
        out = reduce(x.value, [1], lambda l: variance(l, 1.0), False)
        group.add("var", [x], [O(convert(out, dtype), dtype)], axes_attr([1], False) | {"correction": 1.0}, ulps=8, absolute=8 * EPS[dtype])
    return group
