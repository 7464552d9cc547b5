"""Linear algebra. Products are bounded by the magnitudes summed; decompositions by properties that the runner checks, and by
what is unique of them: determinants, solutions, singular values, eigenvalues."""

import numpy as np
import torch

from .common import *


def product(group, op, x, y, attrs=None):
    """Exact product in integers or f64; error below (4 + sqrt k) eps |a| |b|."""
    a, b = x.value, y.value
    f = {"matmul": np.matmul, "bmm": np.matmul, "mm": np.matmul, "mv": np.matmul, "dot": np.dot, "outer": np.outer}[op]
    if x.dtype in FLOATS:
        p, q = a.astype(np.float64), b.astype(np.float64)
        out, size, k = f(p, q), np.max(f(np.abs(p), np.abs(q)), initial=0), p.shape[-1] if p.ndim else 1
        half = x.dtype in ("f16", "bf16")
        absolute = (4 + k**0.5) * EPS["f32" if half else x.dtype] * size
        group.add(op, [x, y], [O(rounded(out, x.dtype), x.dtype)], attrs, ulps=1, absolute=absolute)
    else:
        result = "i32" if x.dtype == "i8" else x.dtype
        exact = f(a.astype(object), b.astype(object)) if a.size and b.size else np.zeros(f(a.astype(np.float64), b.astype(np.float64)).shape, object)
        exact = np.asarray(exact, object)
        out = np.array([wrap(v, result) for v in exact.flat], NUMPY[result]).reshape(exact.shape)
        group.add(op, [x, y], [O(out, result)], attrs)


def matmuls(group, dtype, number):
    a, b = noise(dtype, 240, number), noise(dtype, 251, number + 1)
    t = lambda values, shape, steps=(): T(values, dtype, steps, shape)
    for p, q in [
        ([4, 5], [5, 3]), ([5], [5]), ([4, 5], [5]), ([5], [5, 3]), ([2, 4, 5], [5, 3]), ([2, 4, 5], [2, 5, 3]), ([2, 1, 4, 5], [3, 5, 2]),
        ([5], [2, 5, 3]), ([2, 4, 5], [5]), ([1, 1], [1, 1]), ([0, 5], [5, 3]), ([4, 0], [0, 3]), ([4, 5], [5, 0]), ([0, 4, 5], [5, 3]),
        ([17, 33], [33, 9]), ([1, 64], [64, 31]), ([3, 2, 7, 11], [3, 1, 11, 5]),
    ]:
        product(group, "matmul", t(a, p), t(b, q))
    product(group, "matmul", t(a, [5, 4], [["permute", [1, 0]]]), t(b, [3, 5], [["permute", [1, 0]]]))
    product(group, "matmul", t(a, [4, 5], [["flip", [1]]]), t(b, [5, 3], [["flip", [0]]]))
    product(group, "matmul", t(a, [5], [["expand", [4, 5]]]), t(b, [10], [["unfold", 0, 3, 1], ["narrow", 0, 1, 5]]))
    product(group, "matmul", t(a, [4, 2, 5], [["permute", [1, 0, 2]]]), t(b, [5, 3, 2], [["permute", [2, 0, 1]]]))
    if dtype != "bool":
        product(group, "mm", t(a, [4, 5]), t(b, [5, 3]))
        product(group, "bmm", t(a, [2, 4, 5]), t(b, [2, 5, 3]))
        product(group, "mv", t(a, [4, 5]), t(b, [5]))
        product(group, "dot", t(a, [12]), t(b, [12]))
        product(group, "dot", t(a, [12], [["flip", [0]]]), t(b, [24], [["slice", 0, 0, 24, 2]]))
    if dtype in FLOATS or dtype == "i32":
        product(group, "outer", t(a, [4]), t(b, [3]))
        product(group, "outer", t(a, [6], [["flip", [0]]]), t(b, [0]))
    for p, q in (([4, 5], [4, 3]), ([5], [4]), ([2, 4, 5], [3, 5, 2])):
        group.add("matmul", [t(a, p), t(b, q)], None)
    group.add("matmul", [t(a, []), t(b, [4])], None)
    if dtype in ("f32", "f64", "bf16", "f16", "i8"):
        product(group, "matmul", t(a, [70, 130]), t(b, [130, 65]))
        product(group, "matmul", t(a, [1, 300]), t(b, [300, 70]))
    if dtype in ("i8", "i32", "u8", "i64"):
        low, high = bounds(dtype)
        edge = np.array([high, low], NUMPY[dtype])
        product(group, "matmul", T(edge, dtype, shape=[3, 70]), T(edge, dtype, shape=[70, 2]))


def small(group, dtype, number):
    a, b = noise(dtype, 60, number), noise(dtype, 60, number + 1)
    eps = EPS[dtype if dtype == "f64" else "f32"]
    half = dtype in ("f16", "bf16")
    for shape, axis in (([3], -1), ([4, 3], -1), ([3, 4], 0), ([2, 3, 2], 1)):
        x, y = T(a, dtype, shape=shape), T(b, dtype, shape=shape)
        out = torch.linalg.cross(x.torch("f64" if dtype == "f64" else None).double(), y.torch().double(), dim=axis).numpy() if dtype != "bf16" else np.moveaxis(np.cross(np.moveaxis(x.value.astype(np.float64), axis, -1), np.moveaxis(y.value.astype(np.float64), axis, -1)), -1, axis)
        group.add("cross", [x, y], [O(rounded(out, dtype), dtype)], {"axis": axis}, ulps=1, absolute=2 * eps * 20 if not half else EPS[dtype] * 20)
    for shape in ([4, 4], [3, 5], [0, 0]):
        x = T(a, dtype, shape=shape)
        group.add("trace", [x], [O(rounded(np.trace(x.value.astype(np.float64)), dtype), dtype)], None, ulps=1, absolute=16 * eps)
    for equation, shapes in [
        ("ij,jk->ik", [[3, 4], [4, 5]]), ("ij->ji", [[3, 4]]), ("ii->i", [[4, 4]]), ("ii->", [[4, 4]]), ("ij->", [[3, 4]]), ("ij->j", [[3, 4]]),
        ("i,j->ij", [[3], [4]]), ("bij,bjk->bik", [[2, 3, 4], [2, 4, 2]]), ("ij,ij->ij", [[3, 4], [3, 4]]), ("ij,jk,kl->il", [[2, 3], [3, 4], [4, 2]]),
        ("...ij,...jk->...ik", [[2, 3, 4], [4, 5]]), ("bhqd,bhkd->bhqk", [[1, 2, 3, 4], [1, 2, 5, 4]]), ("ij,jk", [[3, 4], [4, 5]]), ("i,i", [[5], [5]]),
        ("ijk,jl->ikl", [[2, 3, 4], [3, 2]]), ("i...->...i", [[2, 3, 4]]),
    ]:
        operands = [T(noise(dtype, 60, number + k), dtype, shape=s) for k, s in enumerate(shapes)]
        values = [v.value.astype(np.float64) for v in operands]
        out, size = np.einsum(equation, *values), np.max(np.einsum(equation, *map(np.abs, values)))
        # With three factors a product of two is rounded to the dtype on the way.
        absolute = 8 * (EPS[dtype] if len(shapes) == 3 else eps) * size
        group.add("einsum", [operands], [O(rounded(out, dtype), dtype)], {"equation": equation}, ulps=1, absolute=absolute)
    x = T(a, dtype, shape=[3, 4])
    for equation in ("ij,jk->ik", "ij->k", "i->i", "ij->ii", "ij-ji"):
        group.add("einsum", [[x]], None, {"equation": equation})
    group.add("einsum", [[x, T(a, dtype, shape=[3, 4])]], None, {"equation": "ij,jk->ik"})


def square(n, seed, batch=()):
    rng = np.random.default_rng([seed, n])
    return rng.normal(size=(*batch, n, n)) + 2 * np.eye(n)


def decompositions(group, dtype, number):
    eps = EPS[dtype]

    def add(op, inputs, outputs, attrs=None, size=None, factor=64, cond=1.0, zeros=0):
        outputs = [O(rounded(np.asarray(o, np.float64), dtype), dtype) for o in outputs]
        size = max([1.0] + [float(np.abs(o.pattern.astype(np.float64)).max(initial=0)) for o in outputs]) if size is None else size
        group.add(op, inputs, outputs, attrs, ulps=4, absolute=factor * eps * size * cond)

    for n, batch in ((1, ()), (2, ()), (3, ()), (5, (2,)), (8, ()), (4, (2, 3)), (20, ()), (0, ())):
        x = T(square(n, number, batch), dtype)
        v = x.value.astype(np.float64)
        cond = float(np.max(np.linalg.cond(v))) if n else 1.0
        add("det", [x], [np.linalg.det(v)], cond=min(cond, 50))
        sign, log = np.linalg.slogdet(v)
        add("slogdet", [x], [sign, log], cond=min(cond, 50))
        add("inv", [x], [np.linalg.inv(v)], cond=cond)
        b = T(noise("f64", n * 3, number + 1), dtype, shape=[n, 3])
        full = np.broadcast_to(b.value.astype(np.float64), (*batch, n, 3))
        if not batch:
            add("solve", [x, b], [np.linalg.solve(v, full)], cond=cond)
            if n:
                add("solve", [x, T(noise("f64", n, 3), dtype)], [np.linalg.solve(v, T(noise("f64", n, 3), dtype).value.astype(np.float64))], cond=cond)
        elif len(batch) == 1:
            bb = T(np.array(full), dtype)
            add("solve", [x, bb], [np.linalg.solve(v, bb.value.astype(np.float64))], cond=cond)
        spd = T(v @ np.swapaxes(v, -1, -2) + np.eye(n), dtype)
        w = spd.value.astype(np.float64)
        spd_cond = float(np.max(np.linalg.cond(w))) if n else 1.0
        add("cholesky", [spd], [np.linalg.cholesky(w)], cond=min(spd_cond, 100))
        sym = T((v + np.swapaxes(v, -1, -2)) / 2, dtype)
        s = sym.value.astype(np.float64)
        add("eigh", [sym], [np.linalg.eigvalsh(s)], {"property": "eigh"})
        add("svd", [x], [np.linalg.svd(v, compute_uv=False)], {"property": "svd"})
        add("qr", [x], [np.abs(np.linalg.qr(v).R)], {"property": "qr"}, cond=min(cond, 100)) if n else None
        group.add("lu", [x], [], {"property": "lu", "bound": 64 * eps * max(1.0, float(np.abs(v).max(initial=1.0))) * max(n, 1)})
        if n and not batch:
            values = np.linalg.eigvals(v)
            values = values[np.lexsort((values.imag, values.real))]
            left = np.linalg.cond(np.linalg.eig(v).eigenvectors)
            group.add("eig", [x], [O(rounded(np.real(values), dtype), dtype), O(rounded(np.imag(values), dtype), dtype)], {"property": "eig"}, ulps=4, absolute=64 * eps * float(left) * max(1.0, float(np.abs(values).max())))
        for k in (0, 1, 3, -2):
            power = np.linalg.matrix_power(v, k)
            size = float(np.abs(power).max(initial=1)) * (1 + abs(k))
            add("matrix_power", [x], [power], {"n": k}, size=size, cond=cond**2 if k < 0 else max(n, 1))
        if n:
            for ord in ("fro", "nuc", "inf", "-inf", "1", "-1", "2", "-2"):
                value = ord if ord in ("fro", "nuc") else float(ord)
                out = torch.linalg.matrix_norm(torch.from_numpy(v), value).numpy()
                add("matrix_norm", [x], [out], {"ord": ord}, cond=4)
            add("cond", [x], [np.linalg.cond(v)], size=cond * cond)
        rank = np.linalg.matrix_rank(v) if n else np.array(0)
        group.add("matrix_rank", [x], [O(np.asarray(rank), "i64")])
    for m, n in ((5, 3), (3, 5), (6, 1), (1, 4)):
        x = T(noise("f64", m * n, number + m), dtype, shape=[m, n])
        v = x.value.astype(np.float64)
        cond = float(np.linalg.cond(v))
        add("pinv", [x], [np.linalg.pinv(v)], cond=cond * cond)
        add("svd", [x], [np.linalg.svd(v, compute_uv=False)], {"property": "svd"})
        add("qr", [x], [np.abs(np.linalg.qr(v).R)], {"property": "qr"}, cond=min(cond, 100))
        group.add("lu", [x], [], {"property": "lu", "bound": 64 * eps * 8})
        group.add("matrix_rank", [x], [O(np.asarray(np.linalg.matrix_rank(v)), "i64")])
        b = T(noise("f64", m * 2, number + 9), dtype, shape=[m, 2])
        add("lstsq", [x, b], [np.linalg.lstsq(v, b.value.astype(np.float64), rcond=None)[0]], cond=cond * cond)
    low = T(np.outer(np.arange(1, 5), np.arange(1, 6)), dtype)
    group.add("matrix_rank", [low], [O(np.asarray(1), "i64")])
    add("pinv", [low], [np.linalg.pinv(low.value.astype(np.float64))])
    singular = T([[1, 2], [2, 4]], dtype)
    add("det", [singular], [0.0])
    tr = T(square(4, number), dtype, [["permute", [1, 0]], ["flip", [0]]])
    v = tr.value.astype(np.float64)
    add("inv", [tr], [np.linalg.inv(v)], cond=float(np.linalg.cond(v)))
    add("det", [tr], [np.linalg.det(v)], cond=10)
    group.add("inv", [singular], None)
    group.add("solve", [singular, T([1, 2], dtype)], None)
    group.add("cholesky", [T([[1, 2], [2, 1]], dtype)], None)
    for op in ("det", "inv", "cholesky", "eigh", "slogdet", "eig"):
        group.add(op, [T(noise(dtype, 6, 1), dtype, shape=[2, 3])], None)
    for op in ("svd", "qr", "lu"):
        group.add(op, [T(noise(dtype, 6, 1), dtype)], None)


def make():
    group = Group("linalg")
    for number, dtype in enumerate(ALL):
        if dtype != "bool":
            matmuls(group, dtype, number)
        if dtype in FLOATS:
            small(group, dtype, number)
        if dtype in ("f32", "f64"):
            decompositions(group, dtype, number)
    return group
