"""Views, joins and creation."""

import numpy as np
import torch

from .common import *


def views(group, dtype, number):
    a = noise(dtype, 24, number)
    x = T(a, dtype, shape=[2, 3, 4])
    tr = T(a, dtype, [["permute", [2, 0, 1]]], [3, 4, 2])
    flat = T(a, dtype)
    scalar = T(a[0], dtype, shape=[])

    def add(op, source, value, **attrs):
        values = value if isinstance(value, list) else [value]
        group.add(op, [source], [O(v, dtype) for v in values], attrs)

    def fails(op, source, **attrs):
        group.add(op, [source], None, attrs)

    for dims in ([6, 4], [24], [2, 1, 12], [1, 24, 1], [4, 3, 2]):
        add("reshape", x, x.value.reshape(dims), dims=dims)
        add("reshape", tr, tr.value.reshape(dims), dims=dims)
    add("reshape", scalar, scalar.value.reshape(1, 1), dims=[1, 1])
    add("reshape", T(a[:0], dtype, shape=[0, 3]), np.zeros((3, 0)), dims=[3, 0])
    fails("reshape", x, dims=[5, 5])
    add("view", x, x.value.reshape(6, 4), dims=[6, 4])
    add("view", T(a, dtype, [["permute", [1, 0]]], [6, 4]), T(a, dtype, [["permute", [1, 0]]], [6, 4]).value.reshape(2, 2, 6), dims=[2, 2, 6])
    fails("view", tr, dims=[24])
    ones = T(a[:6], dtype, shape=[1, 2, 1, 3])
    for axis in (0, 2, -2, 1):
        add("squeeze", ones, np.squeeze(ones.value, axis) if ones.value.shape[axis] == 1 else ones.value, axis=axis)
    fails("squeeze", ones, axis=4)
    add("squeeze_all", ones, np.squeeze(ones.value))
    for axis in (0, 1, 3, -1):
        add("unsqueeze", x, np.expand_dims(x.value, axis), axis=axis)
    fails("unsqueeze", x, axis=5)
    add("unsqueeze", scalar, scalar.value[None], axis=0)
    for axes in ([2, 0, 1], [0, 1, 2], [-1, 1, 0]):
        add("permute", x, x.value.transpose(axes), axes=axes)
    fails("permute", x, axes=[0, 0, 1])
    fails("permute", x, axes=[0, 1])
    for p, q in ((0, 1), (-1, 0), (1, 1)):
        add("transpose", x, np.swapaxes(x.value, p, q), a=p, b=q)
        add("swapaxes", tr, np.swapaxes(tr.value, p, q), a=p, b=q)
    add("t", T(a, dtype, shape=[4, 6]), a.reshape(4, 6).T)
    add("t", T(a[:5], dtype), a[:5])
    fails("t", x)
    for axis, start, length in ((0, 1, 1), (2, 1, 3), (-2, 0, 2), (1, 3, 0)):
        add("narrow", x, np.take(x.value, range(start, start + length), axis), axis=axis, start=start, len=length)
    fails("narrow", x, axis=0, start=1, len=2)
    for axis, start, end, step in ((2, 0, 4, 2), (2, 1, 3, 1), (0, 0, 2, 1), (2, 1, 4, 2), (1, 0, 3, 5), (1, 2, 2, 1)):
        add("slice", x, apply(x.value, [["slice", axis, start, end, step]]), axis=axis, start=start, end=end, step=step)
        add("slice", tr, apply(tr.value, [["slice", axis, start, end, step]]), axis=axis, start=start, end=end, step=step)
    for axis, i in ((0, 1), (2, -1), (-2, 0)):
        add("select", x, np.take(x.value, i, axis), axis=axis, i=i)
    fails("select", x, axis=1, i=3)
    for dims in ([2, 3, 4], [5, 2, 3, 4]):
        add("expand", x, np.broadcast_to(x.value, dims), dims=dims)
    column = T(a[:3], dtype, shape=[3, 1])
    add("expand", column, np.broadcast_to(column.value, (2, 3, 4)), dims=[2, 3, 4])
    add("broadcast_to", column, np.broadcast_to(column.value, (3, 5)), dims=[3, 5])
    add("broadcast_to", scalar, np.broadcast_to(scalar.value, (2, 2)), dims=[2, 2])
    add("broadcast_to", column, np.zeros((3, 0)), dims=[3, 0])
    fails("broadcast_to", column, dims=[4, 5])
    fails("expand", x, dims=[3, 4])
    for size, axis in ((2, 2), (3, 2), (5, -1), (1, 0)):
        add("split", x, [p for p in np.split(x.value, range(size, x.value.shape[axis], size), axis)], size=size, axis=axis)
    add("split_sizes", x, np.split(x.value, [1], 2), sizes=[1, 3], axis=2)
    add("split_sizes", tr, np.split(tr.value, [0, 2], 0), sizes=[0, 2, 0], axis=0) if tr.value.shape[0] == 2 else None
    fails("split_sizes", x, sizes=[1, 1], axis=2)
    for n, axis in ((2, 2), (3, 2), (2, 1), (7, 0)):
        parts = [p.numpy() for p in torch.chunk(torch.arange(24).reshape(2, 3, 4), n, axis)]
        add("chunk", x, [x.value.reshape(-1)[p] for p in parts], n=n, axis=axis)
    for axis, size, step in ((2, 2, 1), (1, 3, 1), (2, 2, 2), (2, 3, 2), (-1, 4, 1)):
        add("unfold", x, apply(x.value, [["unfold", axis % 3, size, step]]), axis=axis, size=size, step=step)
    fails("unfold", x, axis=2, size=5, step=1)
    fails("unfold", x, axis=2, size=2, step=0)
    for offset, p, q in ((0, 0, 1), (1, 1, 2), (-1, 1, 2), (0, 2, 0), (3, -2, -1), (9, 0, 1)):
        add("diagonal", x, np.diagonal(x.value, offset, p, q), offset=offset, a=p, b=q)
    fails("diagonal", x, offset=0, a=1, b=1)
    for start, end in ((0, 2), (0, -1), (1, 2), (0, 1), (1, 1)):
        for source in (x, tr):
            s, e = start % 3, end % 3
            shape = source.value.shape
            add("flatten", source, source.value.reshape(shape[:s] + (-1,) + shape[e + 1 :]), start=start, end=end)
    add("flatten", scalar, scalar.value.reshape(1), start=0, end=-1)
    fails("flatten", x, start=2, end=0)
    add("unflatten", x, x.value.reshape(2, 3, 2, 2), axis=2, dims=[2, 2])
    fails("unflatten", x, axis=2, dims=[3, 2])
    for p, q in ((0, 2), (2, 0), (-1, 1)):
        add("movedim", x, np.moveaxis(x.value, p, q), a=p, b=q)
    for axes in ([0], [-1], [0, 2], []):
        add("flip", x, np.flip(x.value, axes) if axes else x.value, axes=axes)
        add("flip", tr, np.flip(tr.value, axes) if axes else tr.value, axes=axes)
    fails("flip", x, axes=[0, 0])
    for source in (x, tr, T(a, dtype, [["expand", [3, 24]]]), T(a, dtype, [["unfold", 0, 4, 1]]), T(a, dtype, [["flip", [0]]]), scalar):
        add("contiguous", source, source.value)
        add("copy", source, source.value)
    joins(group, dtype, a, x, tr, flat)


def joins(group, dtype, a, x, tr, flat):
    parts = [T(a, dtype, shape=[2, 3]), T(a[4:], dtype, [["permute", [1, 0]]], [3, 2]), T(a[9:], dtype, [["flip", [1]]], [2, 3])]
    values = [p.value for p in parts]
    for axis in (0, 1, -1):
        group.add("cat", [parts], [O(np.concatenate(values, axis), dtype)], {"axis": axis})
    for axis in (0, 1, 2, -1):
        group.add("stack", [parts], [O(np.stack(values, axis), dtype)], {"axis": axis})
    empty = T(a[:0], dtype, shape=[0, 3])
    group.add("cat", [[empty, parts[0]]], [O(values[0], dtype)], {"axis": 0})
    group.add("cat", [[parts[0], T(a, dtype, shape=[2, 1])]], [O(np.concatenate([values[0], a[:2].reshape(2, 1)], 1), dtype)], {"axis": 1})
    group.add("cat", [[parts[0], flat]], None, {"axis": 0})
    group.add("cat", [[parts[0], T(a, dtype, shape=[2, 2])]], None, {"axis": 0})
    group.add("cat", [[]], None, {"axis": 0})
    group.add("stack", [[parts[0], T(a, dtype, shape=[2, 2])]], None, {"axis": 0})
    for repeats in ([2, 1, 3], [2, 2, 1, 1], [1, 0, 1]):
        group.add("repeat", [x], [O(np.tile(x.value, repeats), dtype)], {"repeats": repeats})
        group.add("repeat", [tr], [O(np.tile(tr.value, repeats), dtype)], {"repeats": repeats})
    for axis in (0, 2, -2):
        group.add("repeat_interleave", [x], [O(np.repeat(x.value, 3, axis), dtype)], {"repeats": 3, "axis": axis})
    for shifts, axes in (([1], [0]), ([-2], [2]), ([1, 2], [1, 2]), ([7], [1])):
        for source in (x, tr):
            group.add("roll", [source], [O(np.roll(source.value, shifts, axes), dtype)], {"shifts": shifts, "axes": axes})
    for k in (0, 1, -1, 5):
        for source in (T(a, dtype, shape=[4, 6]), T(a, dtype, [["permute", [1, 0]]], [3, 4]), x):
            for op in ("tril", "triu"):
                keep = getattr(np, op)(np.ones(source.value.shape[-2:], bool), k)
                zero = np.zeros((), source.value.dtype)
                group.add(op, [source], [O(np.where(keep, source.value, zero), dtype)], {"k": k})


def creation(group, dtype):
    for dims in ([], [3], [2, 0], [2, 3]):
        zero, one = np.zeros(dims), np.ones(dims)
        group.add("zeros", [], [O(zero, dtype)], {"dims": dims, "dtype": dtype})
        group.add("ones", [], [O(one, dtype)], {"dims": dims, "dtype": dtype})
        group.add("full", [S(3)], [O(one * 3, dtype)], {"dims": dims, "dtype": dtype})
        x = T(np.ones(dims), dtype)
        group.add("zeros_like", [x], [O(zero, dtype)])
        group.add("ones_like", [x], [O(one, dtype)])
        group.add("full_like", [x, S(2)], [O(one * 2, dtype)])
    if dtype != "bool":
        for start, end, step in ((0, 5, 1), (2, 11, 3), (0, 0, 1)) + (((5, 0, -2), (-3, 3, 2)) if dtype[0] != "u" else ()):
            group.add("arange", [S(start), S(end), S(step)], [O(np.arange(start, end, step), dtype)], {"dtype": dtype})
        group.add("arange", [S(0), S(5), S(0)], None, {"dtype": dtype})
        group.add("arange", [S(0), S(5), S(-1)], None, {"dtype": dtype})
    if dtype in FLOATS:
        for start, end, step in ((0.0, 1.0, 0.25), (1.0, -1.0, -0.5), (0.5, 3.0, 1.0)):
            group.add("arange", [S(start), S(end), S(step)], [O(np.arange(start, end, step), dtype)], {"dtype": dtype}, ulps=1)
        for start, end, steps in ((0.0, 1.0, 5), (-2.0, 3.0, 11), (1.0, 1.0, 3), (4.0, 0.0, 1), (0.0, 1.0, 0), (0.0, 10.0, 101)):
            values = torch.linspace(start, end, steps, dtype=torch.float64).numpy()
            group.add("linspace", [S(start), S(end)], [O(values, dtype)], {"steps": steps, "dtype": dtype}, ulps=1, absolute=EPS["f32"] * 10 if dtype != "f64" else EPS["f64"] * 10)
    for n, m in ((3, 3), (2, 4), (0, 2)):
        if n == m:
            group.add("eye", [], [O(np.eye(n, m), dtype)], {"n": n, "dtype": dtype})


def make():
    group = Group("shape")
    for number, dtype in enumerate(ALL):
        if dtype in ("f32", "bf16", "u8", "i64"):
            views(group, dtype, number)
        else:
            a = noise(dtype, 24, number)
            joins(group, dtype, a, T(a, dtype, shape=[2, 3, 4]), T(a, dtype, [["permute", [2, 0, 1]]], [3, 4, 2]), T(a, dtype))
        creation(group, dtype)
    return group
