"""Derivatives by torch.autograd in f64, for crates/bitnet-core/tests/derivatives.rs: derivatives.npz beside this file.

Run: python make_derivatives.py (PyTorch and NumPy as in requirements.txt).
For each case: its inputs `case/in0`, .., the gradient of its result `case/grad`, the result `case/out`, and the gradients of
its inputs `case/d0`, ...
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F

rng = np.random.default_rng(20261121)
arrays = {}


def case(name, f, *inputs, constants=()):
    """f(*inputs, *constants); constants are written after the inputs and have no gradient."""
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
    others = [torch.tensor(x) for x in constants]
    out = f(*leaves, *others)
    grad = torch.tensor(rng.standard_normal(out.shape), dtype=torch.float64)
    out.backward(grad)
    for i, x in enumerate([*leaves, *others]):
        arrays[f"{name}/in{i}"] = x.detach().numpy()
    arrays[f"{name}/grad"] = grad.numpy()
    arrays[f"{name}/out"] = out.detach().numpy()
    for i, x in enumerate(leaves):
        arrays[f"{name}/d{i}"] = x.grad.numpy()


def normal(*shape, scale=1.0):
    return rng.standard_normal(shape) * scale


x = np.concatenate([normal(40, scale=2.0), [0.0, 8.0, -8.0, 30.0, -30.0]])
case("relu", torch.relu, x)
case("relu2", lambda t: torch.relu(t) ** 2, x)
case("gelu_erf", F.gelu, x)
case("gelu_tanh", lambda t: F.gelu(t, approximate="tanh"), x)
case("silu", F.silu, x)
case("sigmoid", torch.sigmoid, x)
case("tanh", torch.tanh, x)
case("softplus", lambda t: F.softplus(t, 2.0, 6.0), x)
case("elu", lambda t: F.elu(t, 0.7), x)
case("leaky_relu", lambda t: F.leaky_relu(t, 0.1), x)
for axis in (0, 1, -1):
    case(f"softmax_{axis}", lambda t: torch.softmax(t, axis), normal(3, 4, 5))
    case(f"log_softmax_{axis}", lambda t: torch.log_softmax(t, axis), normal(3, 4, 5))
case("layer_norm", lambda t, w, b: F.layer_norm(t, (3, 4), w, b, 1e-3), normal(2, 5, 3, 4), normal(3, 4), normal(3, 4))
case("layer_norm_plain", lambda t: F.layer_norm(t, (6,), eps=1e-5), normal(4, 6))
case("rms_norm", lambda t, w: F.rms_norm(t, (6,), w, 1e-3), normal(2, 4, 6), normal(6))
ids = np.array([[2, 0, 2], [4, 2, 1]])
case("embedding", lambda t, i: F.embedding(i, t), normal(5, 3), constants=(ids,))

targets = np.array([0, 6, -100, 3, 3])
for reduction in ("none", "mean", "sum"):
    for smoothing in (0.0, 0.1):
        name = f"cross_entropy_{reduction}_{int(smoothing * 10)}"
        options = dict(reduction=reduction, label_smoothing=smoothing)
        weight = np.abs(normal(7)) + 0.1
        case(f"{name}_weight", lambda t, i, w: F.cross_entropy(t, i, w, **options), normal(5, 7), constants=(targets, weight))
        case(name, lambda t, i: F.cross_entropy(t, i, **options), normal(5, 7), constants=(targets,))
        soft = torch.softmax(torch.tensor(normal(5, 7, 2)), 1).numpy()
        case(f"{name}_soft", lambda t, p: F.cross_entropy(t, p, **options), normal(5, 7, 2), constants=(soft,))
        planes = np.array([[0, 6], [-100, 1], [5, 5]])
        case(f"{name}_planes", lambda t, i: F.cross_entropy(t, i, **options), normal(3, 7, 2), constants=(planes,))
    case(f"mse_loss_{reduction}", lambda a, b: F.mse_loss(a, b, reduction=reduction), normal(3, 4), normal(3, 4))
    logs = torch.log_softmax(torch.tensor(normal(3, 4)), -1).numpy()
    probabilities = torch.softmax(torch.tensor(normal(3, 4)), -1).numpy()
    case(f"kl_div_{reduction}", lambda a, b: F.kl_div(a, b, reduction=reduction), logs, probabilities)
    case(f"kl_div_log_{reduction}", lambda a, b: F.kl_div(a, b, reduction=reduction, log_target=True), logs, np.log(probabilities))


def rope(t, cos, sin):
    low, high = t.chunk(2, -1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


angles = np.arange(5)[:, None] * 0.3 ** np.arange(3)
case("rope", rope, normal(2, 5, 6), constants=(np.cos(angles), np.sin(angles)))


def attend(**options):
    return lambda q, k, v, *mask: F.scaled_dot_product_attention(
        q, k, v, *mask, enable_gqa=q.shape[-3] != k.shape[-3], **options
    )


case("attention", attend(), normal(2, 2, 3, 4), normal(2, 2, 5, 4), normal(2, 2, 5, 6))
case("attention_causal", attend(is_causal=True, scale=0.3), normal(1, 2, 4, 4), normal(1, 2, 4, 4), normal(1, 2, 4, 4))
case("attention_grouped", attend(is_causal=True), normal(2, 6, 3, 4), normal(2, 2, 3, 4), normal(2, 2, 3, 4))
keep = np.arange(15).reshape(3, 5) * 5 % 7 < 4
keep[:, 0] = True
case("attention_bool", attend(), normal(1, 2, 3, 4), normal(1, 2, 5, 4), normal(1, 2, 5, 4), constants=(keep,))
case("attention_float", attend(), normal(1, 2, 3, 4), normal(1, 2, 5, 4), normal(1, 2, 5, 4), normal(2, 3, 5))

np.savez_compressed(pathlib.Path(__file__).parent / "derivatives.npz", **arrays)
print(len([name for name in arrays if name.endswith("/grad")]), "cases")
