"""Makes linear.safetensors, the reference of tests/linear.rs.

Versions: torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
Run: python crates/bitnet-quant/tests/data/make_linear.py

Values and gradients of quantized linear layers in f64: rounding lets the gradient pass by the detach trick, the learned
step is LSQ (Esser et al. 2020, appendix A), with its formulas for codes from -1 to 1.
"""

import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file

rng = np.random.default_rng(12)
out = {}
x0 = torch.from_numpy(rng.standard_normal((6, 32)).astype(np.float32)).double()
w0 = torch.from_numpy(rng.standard_normal((8, 32)).astype(np.float32)).double()
dy = torch.from_numpy(rng.standard_normal((6, 8)).astype(np.float32)).double()
out |= {"x": x0, "w": w0, "dy": dy}


def passing(x, quantized):
    return x + (quantized - x).detach()


def groups(x, kind):
    return {"tensor": x.reshape(1, -1), "row": x, "group": x.reshape(-1, 16)}[kind]


def absmax(x, high, kind):
    g = groups(x, kind)
    s = high / g.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    return passing(x, ((g * s).round().clamp(-high - 1, high) / s).reshape(x.shape))


def ternary(x, magnitude, kind):
    g = groups(x, kind)
    s = 1 / magnitude(g.abs()).clamp(min=1e-5)
    return passing(x, ((g * s).round().clamp(-1, 1) / s).reshape(x.shape))


def median(g):
    return g.median(-1, keepdim=True).values


def mean(g):
    return g.mean(-1, keepdim=True)


def binary(x, kind):
    g = groups(x, kind)
    return passing(x, (torch.where(g >= 0, 1.0, -1.0) * mean(g.abs())).reshape(x.shape))


def lsq(w, step):
    factor = 1 / np.sqrt(w.numel())
    s = (step - step * factor).detach() + step * factor
    v = (w / s).clamp(-1, 1)
    return passing(v, v.round()) * s


def layer(name, weights, inputs, step=None):
    x, w = x0.clone().requires_grad_(), w0.clone().requires_grad_()
    y = inputs(x) @ weights(w).T
    (y * dy).sum().backward()
    out.update({f"{name}.y": y.detach(), f"{name}.dx": x.grad, f"{name}.dw": w.grad})
    if step is not None:
        out[f"{name}.dstep"] = step.grad


def int8(x):
    return absmax(x, 127, "row")


layer("absmean", lambda w: ternary(w, mean, "tensor"), int8)
layer("absmedian", lambda w: ternary(w, median, "tensor"), int8)
layer("absmedian.row", lambda w: ternary(w, median, "row"), lambda x: absmax(x, 7, "group"))
layer("int4.group", lambda w: absmax(w, 7, "group"), lambda x: absmax(x, 127, "tensor"))
layer("binary.row", lambda w: binary(w, "row"), int8)
for lam in (1.0, 0.25):
    # It begins at twice the mean magnitude.
    step = (2 * w0.abs().mean()).requires_grad_()
    layer(f"lsq.{lam}", lambda w: w + lam * (lsq(w, step) - w), lambda x: x + lam * (int8(x) - x).detach(), step)
    out["step"] = step.detach()

save_file(
    {k: v.detach().numpy().astype(np.float32, order="C") for k, v in out.items()},
    pathlib.Path(__file__).parent / "linear.safetensors",
)
