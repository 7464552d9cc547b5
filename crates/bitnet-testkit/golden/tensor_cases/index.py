"""Reading and writing by index: gather, scatter, index tensors, masks, slices."""

import numpy as np
import torch

from .common import *


def t(x):
    return torch.from_numpy(np.array(x.value, order="C"))


def out(tensor, dtype):
    return O(tensor.numpy(), dtype)


def ids(values):
    return T(np.array(values, np.int64), "i64")


def gathers(group, dtype, number):
    """Elements are only moved, so NumPy's dtypes do; additions are NumPy's too."""
    a = noise(dtype, 24, number)
    x, tr = T(a, dtype, shape=[4, 6]), T(a, dtype, [["permute", [1, 0]], ["flip", [0]]], [6, 4])
    for source in (x, tr):
        v = source.value
        for axis, index in [(0, ids([[0, 3, 1], [2, 2, 0]])), (1, ids([[5, 0], [1, 1], [2, 4], [3, 3]])), (-1, ids([[1, 0]])), (0, ids(np.zeros((0, 6))))]:
            taken = torch.gather(torch.arange(v.size).reshape(v.shape), axis, t(index))
            group.add("gather", [source, index], [O(v.reshape(-1)[taken.numpy()], dtype)], {"axis": axis})
        for axis, index in [(0, [3, 0, 0, 1]), (1, [5, 2, 2]), (-1, [])]:
            group.add("index_select", [source, ids(index)], [O(np.take(v, np.array(index, int), axis), dtype)], {"axis": axis})
        order = np.argsort(np.arange(24).reshape(4, 6) * 7 % 11, axis=1)
        group.add("take_along_axis", [source, T(order, "i64")], [O(np.take_along_axis(v, order, 1), dtype)], {"axis": 1})
    group.add("take_along_axis", [x, ids([[0], [5], [2], [3]])], [O(np.take_along_axis(x.value, np.array([[0], [5], [2], [3]]), 1), dtype)], {"axis": 1})
    group.add("gather", [x, T([1], "i64", [["expand", [2, 6]]])], [O(x.value[[1, 1]], dtype)], {"axis": 0})
    group.add("gather", [x, ids([[4]])], None, {"axis": 0})
    # A negative index is an error in PyTorch's functions of this kind (not in indexing).
    group.add("gather", [x, ids([[-1]])], None, {"axis": 0})
    group.add("index_select", [x, ids([-1])], None, {"axis": 0})
    group.add("index_select", [x, ids([6])], None, {"axis": 1})
    scalar = T(a[0], dtype, shape=[])
    group.add("gather", [scalar, T(0, "i64", shape=[])], [O(a[0], dtype)], {"axis": 0})


def scatters(group, dtype, number):
    a, b = noise(dtype, 24, number), noise(dtype, 24, number + 1)
    x = T(a, dtype, shape=[4, 6])
    tr = T(a, dtype, [["permute", [1, 0]]], [6, 4])
    for axis, index in [(0, [[0, 3, 1, 1, 2, 0], [2, 2, 0, 3, 1, 3]]), (1, [[5, 0], [1, 2], [2, 4], [3, 0]]), (0, np.zeros((0, 6), int))]:
        index = np.array(index)
        source = T(b, dtype, shape=list(index.shape))
        for target in (x, tr):
            v = np.array(target.value)
            np.put_along_axis(v, index, source.value, axis)
            group.add("scatter_", [target, T(index, "i64"), source], [O(v, dtype)], {"axis": axis})
        # Repeated places add up; integers wrap, bool is or.
        repeated = index % 2
        v = np.array(x.value).astype(np.float32 if dtype in ("f16",) else x.value.dtype)
        for at in np.ndindex(repeated.shape):
            place = (repeated[at], at[1]) if axis == 0 else (at[0], repeated[at])
            v[place] = (v[place] | source.value[at]) if dtype == "bool" else v[place] + source.value[at].astype(v.dtype)
        half = dtype in ("f16", "bf16")
        size = 16 * EPS[dtype] * float(np.abs(b.astype(np.float64)).max()) if half else 0
        group.add("scatter_add_", [x, T(repeated, "i64"), source], [O(v, dtype)], {"axis": axis}, ulps=4 if dtype in FLOATS else 0, absolute=size or (1e-6 if dtype == "f32" else 1e-14 if dtype == "f64" else 0))
    group.add("scatter_", [x, ids([[4]]), T(b[0], dtype, shape=[1, 1])], None, {"axis": 0})
    index = [2, 0, 2]
    for axis in (0, 1):
        shape = [3, 6] if axis == 0 else [4, 3]
        source = T(b, dtype, shape=shape)
        v = np.moveaxis(np.array(x.value).astype(np.float32 if dtype == "f16" else x.value.dtype), axis, 0)
        for k, row in enumerate(index):
            part = np.moveaxis(source.value, axis, 0)[k]
            v[row] = (v[row] | part) if dtype == "bool" else v[row] + part.astype(v.dtype)
        tolerance = 8 * EPS[dtype] * 4 if dtype in FLOATS else 0
        group.add("index_add_", [x, ids(index), source], [O(np.moveaxis(v, 0, axis), dtype)], {"axis": axis}, ulps=2 if dtype in FLOATS else 0, absolute=tolerance)
        v = np.array(tr.value if axis else x.value)
        np.moveaxis(v, axis, 0)[[0, 3]] = 1
        group.add("index_fill_", [tr if axis else x, ids([0, 3]), S(1.0 if dtype in FLOATS else 1)], [O(v, dtype)], {"axis": axis})


def masks(group, dtype, number):
    a, b = noise(dtype, 24, number), noise(dtype, 24, number + 1)
    mask = np.arange(24).reshape(4, 6) * 5 % 7 < 3
    row = np.arange(6) % 2 == 0
    for x in (T(a, dtype, shape=[4, 6]), T(a, dtype, [["permute", [1, 0]], ["flip", [1]]], [6, 4])):
        for m in (T(mask, "bool"), T(row, "bool"), T(row, "bool", [["flip", [0]]]), T(True, "bool", shape=[])):
            full = np.broadcast_to(m.value, (4, 6))
            group.add("masked_fill", [x, m, S(2.0 if dtype in FLOATS else 1)], [O(np.where(full, np.array(2 if dtype in FLOATS else 1).astype(x.value.dtype), x.value), dtype)])
            group.add("masked_select", [x, m], [O(x.value[full], dtype)])
            other = T(b, dtype, shape=[4, 6])
            group.add("where_", [m, x, other], [O(np.where(full, x.value, other.value), dtype)])
    group.add("where_", [T(mask[:, :1], "bool"), T(a, dtype, shape=[6]), T(b, dtype, shape=[])], [O(np.where(mask[:, :1], a[:6], b[0]), dtype)])
    group.add("where_", [T(mask[:0], "bool"), T(a, dtype, shape=[6]), T(b, dtype, shape=[])], [O(np.zeros((0, 6)), dtype)])
    group.add("masked_select", [T(a[:0], dtype, shape=[0]), T([], "bool")], [O(np.zeros(0), dtype)])
    x = T(np.where(np.arange(24) % 3 == 0, np.zeros(1, a.dtype), a), dtype, shape=[2, 3, 4])
    group.add("nonzero", [x], [O(np.argwhere(x.value != 0), "i64")])
    x = T(x.pattern, dtype, [["permute", [1, 0]]], [4, 6])
    group.add("nonzero", [x], [O(np.argwhere(x.value != 0), "i64")])
    group.add("nonzero", [T(np.zeros(3), dtype)], [O(np.zeros((0, 1)), "i64")])


# An index in JSON: integers, [start, end, step], "...", null (a new axis), {"t": k} (the k-th index tensor).
FULL_SLICE = [None, None, 1]


def indexing(group, dtype, number):
    a = noise(dtype, 60, number)
    x, tr = T(a, dtype, shape=[3, 4, 5]), T(a, dtype, [["permute", [2, 0, 1]]], [4, 5, 3])
    cases = [
        ([1], []), ([-1, 2], []), ([1, 2, -3], []), ([[1, None, 1]], []), ([[None, None, -1]], []), (["...", 1], []), ([0, "...", None], []),
        ([FULL_SLICE, [3, 0, -2]], []), ([[0, 0, 1]], []), ([[-2, None, 1], "...", [None, None, 2]], []),
        ([{"t": 0}], [np.array([2, 0, 0])]), ([{"t": 0}], [np.array([[2, -1], [0, 1]])]), ([FULL_SLICE, {"t": 0}], [np.array([3, 1])]),
        ([{"t": 0}, {"t": 1}], [np.array([2, 0, 1]), np.array([3, 3, 0])]), ([{"t": 0}, FULL_SLICE, {"t": 1}], [np.array([2, 0]), np.array([4, 1])]),
        ([{"t": 0}, {"t": 1}], [np.array([[2], [0]]), np.array([1, 3, 2])]), ([1, {"t": 0}], [np.array([3, 0])]), (["...", {"t": 0}], [np.array([], int)]),
        ([FULL_SLICE, {"t": 0}, {"t": 1}], [np.array([0, 1]), np.array([2, 4])]), ([[0, 2, 1], {"t": 0}, None], [np.array([1, 1])]),
        ([{"t": 0}], [np.arange(60).reshape(3, 4, 5) % 7 < 2]), ([{"t": 0}], [np.array([True, False, True])]), ([FULL_SLICE, {"t": 0}], [np.array([True, False, False, True])]),
        ([{"t": 0}, 1], [np.array([True, False, True])]), (["...", {"t": 0}], [np.zeros(5, bool)]), ([3], []), ([0, 0, 0, 0], []), ([{"t": 0}], [np.array([3])]),
    ]
    for k, (parts, tensors) in enumerate(cases):
        source = tr if k % 3 == 2 and not any(v.dtype == bool for v in tensors) else x
        operands = [T(v, "bool" if v.dtype == bool else "i64") for v in tensors]
        attrs = {"index": parts}
        place = tuple(
            slice(*p) if isinstance(p, list) else Ellipsis if p == "..." else tensors[p["t"]] if isinstance(p, dict) else p for p in parts
        )
        try:
            got = source.value[place]
        except IndexError:
            group.add("index", [source, *operands], None, attrs)
            group.add("index_put_", [source, T(a[0], dtype, shape=[]), *operands], None, attrs)
            continue
        if any(isinstance(p, int) for p in parts) and tensors and "..." not in parts or None in parts and tensors:
            # NumPy counts an integer among the index tensors, PyTorch selects with it first; None likewise.
            indices = torch.arange(60).reshape(source.value.shape)
            flat = indices[tuple(torch.from_numpy(p) if isinstance(p, np.ndarray) else p for p in place)].numpy()
            got = source.value.reshape(-1)[flat]
        group.add("index", [source, *operands], [O(got, dtype)], attrs)
        values = noise(dtype, 60, number + 7)
        repeated = any(v.dtype != bool and len(np.unique(v % 3)) < v.size for v in tensors)
        for v in [T(values, dtype, shape=list(got.shape)) if not repeated else None, T(values[0], dtype, shape=[])]:
            if v is None:
                continue
            changed = np.array(source.value)
            if None in parts and tensors or any(isinstance(p, int) for p in parts) and tensors:
                changed.reshape(-1)[flat] = v.value
            else:
                changed[place] = v.value
            group.add("index_put_", [source, v, *operands], [O(changed, dtype)], attrs)
    for parts in ([[1, 3, 1], FULL_SLICE, [0, 5, 2]], [FULL_SLICE, [3, None, -1]], [1, "..."]):
        place = tuple(slice(*p) if isinstance(p, list) else Ellipsis if p == "..." else p for p in parts)
        if parts[0] == FULL_SLICE:
            place = (slice(None), slice(3, None, -1))
        changed = np.array(x.value)
        v = T(noise(dtype, 60, number + 9), dtype, shape=list(changed[place].shape))
        changed[place] = v.value
        group.add("slice_assign", [x, v], [O(changed, dtype)], {"index": parts})


def make():
    group = Group("index")
    for number, dtype in enumerate(ALL):
        gathers(group, dtype, number)
        scatters(group, dtype, number)
        masks(group, dtype, number)
        if dtype in ("f32", "bf16", "i64", "u8", "bool", "f64"):
            indexing(group, dtype, number)
    return group
