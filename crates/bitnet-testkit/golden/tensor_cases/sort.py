"""Sorting and searching: stable, NaN as the largest."""

import numpy as np
import torch

from .common import *


def order(v, axis, descending):
    """Positions of a stable sort along an axis; NaN largest."""
    lanes = np.moveaxis(v, axis, -1)
    out = np.empty(lanes.shape, np.int64)
    for at in np.ndindex(lanes.shape[:-1]):
        lane = lanes[at]
        nan = np.isnan(lane) if lane.dtype.kind == "f" else np.zeros(lane.shape, bool)
        key = lambda i: (bool(nan[i]), 0.0 if nan[i] else lane[i].item())
        if descending:
            # Equal elements keep their order, so reverse is not enough.
            ranks = {k: r for r, k in enumerate(sorted({key(i) for i in range(len(lane))}, reverse=True))}
            out[at] = sorted(range(len(lane)), key=lambda i: ranks[key(i)])
        else:
            out[at] = sorted(range(len(lane)), key=key)
    return np.moveaxis(out, -1, axis)


def make():
    group = Group("sort")
    for number, dtype in enumerate(ALL):
        a = noise(dtype, 60, number)
        a[::7] = a[3]
        special = corners(dtype)
        operands = [
            (T(a, dtype, shape=[3, 4, 5]), -1), (T(a, dtype, shape=[3, 4, 5]), 0), (T(a, dtype, [["permute", [1, 0]]], [6, 10]), 1),
            (T(a, dtype, [["flip", [0]]], [25]), 0), (T(special, dtype), 0), (T(a, dtype, [["expand", [3, 6]]], [6]), 0),
            (T(a, dtype, [["unfold", 0, 6, 3]], [24]), 1), (T(a[:0], dtype, shape=[2, 0]), 1), (T(a[:0], dtype, shape=[0, 2]), 1), (T(a[:1], dtype), 0),
        ]
        if dtype in ("f32", "i32"):
            operands.append((T(noise(dtype, 1500, 3), dtype), 0))
        for x, axis in operands:
            for descending in (False, True):
                at = order(x.value, axis, descending)
                values = np.take_along_axis(x.value, at, axis)
                if dtype in FULL and dtype != "bool":
                    want, positions = torch.sort(x.torch(), dim=axis, descending=descending, stable=True)
                    assert np.array_equal(positions.numpy(), at), (dtype, x.value, positions, at)
                attrs = {"axis": axis, "descending": descending}
                group.add("sort", [x], [O(values, dtype), O(at, "i64")], attrs)
                group.add("argsort", [x], [O(at, "i64")], attrs)
                for k in (0, 1, 3):
                    if k <= x.value.shape[axis] and x.value.size < 100:
                        part = [slice(None)] * x.value.ndim
                        part[axis] = slice(0, k)
                        group.add("topk", [x], [O(values[tuple(part)], dtype), O(at[tuple(part)], "i64")], {"k": k, "axis": axis, "largest": descending})
        x = operands[0][0]
        group.add("topk", [x], None, {"k": 6, "axis": -1, "largest": True})
        group.add("sort", [x], None, {"axis": 3, "descending": False})
        for x in [T(a, dtype, shape=[3, 4]), T(a, dtype), T(a, dtype, [["permute", [1, 0]]], [6, 10]), T(a[:0], dtype), T(a[0], dtype, shape=[])]:
            values, inverse, counts = np.unique(x.value, return_inverse=True, return_counts=True)
            group.add("unique", [x], [O(values, dtype), O(inverse.reshape(x.value.shape), "i64"), O(counts, "i64")])
        if dtype != "bool":
            row = np.sort(a[:9])
            needles = np.concatenate([row[[0, 4, 8]], a[:5], corners(dtype, True)[[0, 2]]])
            for right in (False, True):
                side = "right" if right else "left"
                for values in (T(needles, dtype), T(needles[:6], dtype, [["permute", [1, 0]]], [2, 3]), T(needles[1], dtype, shape=[]), T(needles[:0], dtype)):
                    found = np.searchsorted(row, values.value, side)
                    group.add("searchsorted", [T(row, dtype), values], [O(found, "i64")], {"right": right})
                rows = np.sort(a[:24].reshape(4, 6), axis=1)
                found = np.stack([np.searchsorted(r, v, side) for r, v in zip(rows, needles[:8].reshape(4, 2))])
                group.add("searchsorted", [T(rows, dtype), T(needles[:8], dtype, shape=[4, 2])], [O(found, "i64")], {"right": right})
        if dtype in INTS:
            b = np.abs(a.astype(np.int64))
            group.add("bincount", [T(b, dtype)], [O(np.bincount(b), "i64")])
            group.add("bincount", [T(b, dtype, [["flip", [0]]])], [O(np.bincount(b), "i64")])
            group.add("bincount", [T(b[:0], dtype)], [O(np.zeros(0), "i64")])
            if dtype in SIGNED:
                group.add("bincount", [T([1, -1], dtype)], None)
    return group
