"""Functions of neural networks, evaluated by PyTorch in f64 on the rounded inputs and rounded once."""

import numpy as np
import torch
import torch.nn.functional as F

from .common import *


def f64(x):
    return torch.from_numpy(np.array(x.value).astype(np.float64))


def tolerance(dtype, size):
    """Eight eps of the arithmetic (f32 for narrow floats) times a size; beside one ulp."""
    return 8 * EPS["f64" if dtype == "f64" else "f32"] * size


def add(group, op, inputs, value, dtype, attrs=None, size=None):
    value = value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    finite = np.abs(value[np.isfinite(value)])
    size = float(finite.max(initial=1)) if size is None else size
    group.add(op, inputs, [O(rounded(value, dtype), dtype)], attrs, ulps=1, absolute=tolerance(dtype, size))


def activations(group, dtype, number):
    values = corners(dtype)
    values = values[np.isfinite(values)]
    for x in (T(values, dtype), layouts(values, dtype, number), T(values[0], dtype, shape=[]), T(values[:0], dtype), T(noise(dtype, 61, 4, 3.0), dtype, shape=[1009])):
        v = f64(x)
        for beta, threshold in ((1.0, 20.0), (2.0, 20.0), (0.5, 3.0)):
            group.add("softplus", [x], [O(rounded(F.softplus(v, beta, threshold).numpy(), dtype), dtype)], {"beta": beta, "threshold": threshold}, ulps=1 if dtype in ("f16", "bf16") else 6, absolute=1e-38 if dtype != "f64" else 0)
        for alpha in (1.0, 0.5):
            group.add("elu", [x], [O(rounded(F.elu(v, alpha).numpy(), dtype), dtype)], {"alpha": alpha}, ulps=1 if dtype in ("f16", "bf16") else 4)
        for slope in (0.25, 0.5):
            group.add("leaky_relu", [x], [O(rounded(F.leaky_relu(v, slope).numpy(), dtype), dtype)], {"slope": slope}, ulps=1)


def softmaxes(group, dtype, number):
    a = noise(dtype, 120, number, 3.0)
    for x, axis in [
        (T(a, dtype, shape=[3, 4, 5]), -1), (T(a, dtype, shape=[3, 4, 5]), 0), (T(a, dtype, shape=[3, 4, 5]), 1), (T(a, dtype, [["permute", [1, 0]]], [6, 20]), 1),
        (T(a, dtype, [["expand", [3, 7]]], [7]), -1), (T(a, dtype, [["flip", [1]]], [2, 33]), -1), (T(a[0], dtype, shape=[]), 0), (T(a[:0], dtype, shape=[0, 3]), 1),
        (T(a[:0], dtype, shape=[3, 0]), 1), (T(a, dtype, shape=[5, 1]), -1), (T(a, dtype, shape=[7, 257]), -1), (T(a * 20, dtype, shape=[4, 9]), -1),
        (T(rounded(np.array([[0, -math.inf, 1], [math.inf, 0, 1], [math.nan, 1, 2], [-math.inf] * 3]), dtype), dtype), -1),
    ]:
        v = f64(x)
        spread = float(np.max(np.abs(x.value.astype(np.float64)[np.isfinite(x.value.astype(np.float64))]), initial=1))
        add(group, "softmax", [x], F.softmax(v, axis), dtype, {"axis": axis}, size=spread / 2)
        add(group, "log_softmax", [x], F.log_softmax(v, axis), dtype, {"axis": axis})


def norms(group, dtype, number):
    a, w, b = noise(dtype, 120, number, 2.0), noise(dtype, 40, number + 1), noise(dtype, 40, number + 2)
    for shape, normal, steps in [([4, 5], [5], ()), ([2, 3, 4], [4], ()), ([2, 3, 4], [3, 4], ()), ([5, 6], [5], [["permute", [1, 0]]]), ([3, 1], [1], ()), ([0, 4], [4], ()), ([9, 40], [40], ()), ([7], [7], [["flip", [0]]])]:
        x = T(a, dtype, steps, shape)
        weight, bias = T(w, dtype, shape=normal), T(b, dtype, shape=normal)
        for eps in (1e-5, 1e-2):
            for wt, bs in ((weight, bias), (weight, None), (None, None)):
                inputs = [x] + [p for p in (wt, bs) if p is not None]
                attrs = {"eps": eps, "weight": wt is not None, "bias": bs is not None, "normalized": normal}
                add(group, "layer_norm", inputs, F.layer_norm(f64(x), normal, wt and f64(wt), bs and f64(bs), eps), dtype, attrs)
            if len(normal) == 1:
                add(group, "rms_norm", [x, weight], F.rms_norm(f64(x), normal, f64(weight), eps), dtype, {"eps": eps})


def losses(group, dtype, number):
    a = noise(dtype, 60, number, 2.0)
    logits = T(a, dtype, shape=[6, 7])
    targets = T([0, 6, 3, 3, -100, 2], "i64")
    for reduction in ("mean", "sum", "none"):
        for smoothing in (0.0, 0.1):
            attrs = {"reduction": reduction, "smoothing": smoothing, "ignore": -100}
            value = F.cross_entropy(f64(logits), torch.from_numpy(targets.value), reduction=reduction, label_smoothing=smoothing)
            add(group, "cross_entropy", [logits, targets], value, dtype, attrs, size=16)
        x, y = T(a, dtype, shape=[4, 5]), T(a[7:], dtype, [["permute", [1, 0]]], [5, 4])
        add(group, "mse_loss", [x, y], F.mse_loss(f64(x), f64(y), reduction=reduction), dtype, {"reduction": reduction})
        p = T(rounded(torch.log_softmax(f64(x), -1).numpy(), dtype), dtype)
        q = T(rounded(torch.softmax(f64(y), -1).numpy(), dtype), dtype)
        for log_target in (False, True):
            target = T(rounded(torch.log_softmax(f64(y), -1).numpy(), dtype), dtype) if log_target else q
            add(group, "kl_div", [p, target], F.kl_div(f64(p), f64(target), reduction=reduction, log_target=log_target), dtype, {"reduction": reduction, "log_target": log_target}, size=8)
    group.add("cross_entropy", [logits, T([0, 1, 2, 3, 4, 7], "i64")], None, {"reduction": "mean", "smoothing": 0.0, "ignore": -100})
    group.add("cross_entropy", [logits, T([0, 1, 2], "i64")], None, {"reduction": "mean", "smoothing": 0.0, "ignore": -100})


def rotate(x, cos, sin):
    """Halves rotated: x [.., T, D], cos and sin [T, D/2]."""
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], -1)


def attention(group, dtype, number):
    a = noise(dtype, 251, number)
    for shape in ([3, 4], [2, 3, 4], [1, 2, 5, 6]):
        x = T(a, dtype, shape=shape)
        angles = np.arange(shape[-2])[:, None] * 0.3 ** np.arange(shape[-1] // 2)
        cos, sin = T(np.cos(angles), dtype), T(np.sin(angles), dtype)
        value = rotate(*(v.value.astype(np.float64) for v in (x, cos, sin)))
        add(group, "rope", [x, cos, sin], value, dtype)
    for q, kv, causal, scale, mask, steps in [
        ([1, 2, 5, 8], [1, 2, 5, 8], False, None, None, ()), ([1, 2, 5, 8], [1, 2, 5, 8], True, None, None, ()), ([2, 4, 3, 8], [2, 2, 3, 8], True, None, None, ()),
        ([1, 4, 3, 8], [1, 1, 6, 8], False, 0.5, None, ()), ([1, 2, 3, 4], [1, 2, 6, 4], False, None, "bool", ()), ([1, 2, 3, 4], [1, 2, 6, 4], False, None, "float", ()),
        ([1, 1, 1, 4], [1, 1, 1, 4], True, None, None, ()), ([2, 3, 2, 8], [2, 3, 2, 8], True, None, None, [["permute", [0, 2, 1, 3]]]), ([1, 2, 19, 16], [1, 2, 19, 16], True, None, None, ()),
    ]:
        operands = [T(a[k:], dtype, steps, s) for k, s in ((0, q), (13, kv), (29, kv))]
        values = [f64(x) for x in operands]
        inputs, m = list(operands), None
        if mask:
            shape = [q[-2], kv[-2]]
            keep = (np.arange(shape[0] * shape[1]) * 5 % 7 < 4).reshape(shape)
            keep[:, 0] = True
            inputs.append(T(keep, "bool") if mask == "bool" else T(np.where(keep, 0.5, -2.0), dtype))
            m = torch.from_numpy(keep) if mask == "bool" else f64(inputs[-1])
        groups = values[0].shape[1] // values[1].shape[1]
        keys, vals = (t.repeat_interleave(groups, 1) for t in values[1:])
        value = F.scaled_dot_product_attention(values[0], keys, vals, m, is_causal=causal, scale=scale)
        add(group, "scaled_dot_product_attention", inputs, value, dtype, {"causal": causal, "scale": scale, "mask": mask is not None}, size=4)


def tables(group, dtype, number):
    a = noise(dtype, 30, number)
    for table in (T(a, dtype, shape=[6, 5]), T(a, dtype, [["permute", [1, 0]]], [5, 6])):
        for ids in ([3, 0, 0, 5], [[1, 2], [4, 1]], []):
            ids = np.array(ids, np.int64)
            group.add("embedding", [table, T(ids, "i64")], [O(table.value[ids], dtype)])
    group.add("embedding", [T(a, dtype, shape=[6, 5]), T([6], "i64")], None)
    group.add("embedding", [T(a, dtype, shape=[6, 5]), T([-1], "i64")], None)


def make():
    group = Group("neural")
    for number, dtype in enumerate(FLOATS):
        for part in (activations, softmaxes, norms, losses, attention, tables):
            part(group, dtype, number)
    for ids in ([0, 2, 1], [[3, 3], [0, 1]], []):
        ids = np.array(ids, np.int64)
        group.add("one_hot", [T(ids, "i64")], [O(np.eye(4, dtype=np.int64)[ids], "i64")], {"classes": 4})
    group.add("one_hot", [T([4], "i64")], None, {"classes": 4})
    group.add("one_hot", [T([-1], "i64")], None, {"classes": 4})
    return group
