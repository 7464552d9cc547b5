"""Makes quantizers.safetensors, the reference of tests/quantizers.rs.

Versions: transformers 5.23.0, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
Run: python crates/bitnet-quant/tests/data/make_quantizers.py

Absmean and 8-bit activations: `WeightQuant` and `ActQuant` of transformers, run eagerly, where they have the
granularity; else their formulas applied to rows or groups. The others: their papers' formulas in torch.
"""

import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file

torch._dynamo.config.disable = True
from transformers.integrations import bitnet  # noqa: E402

rng = np.random.default_rng(11)
out = {}


def groups(x, kind):
    return {"tensor": x.reshape(1, -1), "row": x, "group": x.reshape(-1, 16)}[kind]


def ternary(x, magnitude):
    s = 1.0 / magnitude.clamp(min=1e-5)
    return (x * s).round().clamp(-1, 1), s, True


def absmax(x, low, high):
    s = high / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    return (x * s).round().clamp(low, high), s, True


def lsq(x):
    step = 2 * x.abs().mean(-1, keepdim=True)
    return (x / step).round().clamp(-1, 1), step, False


def binary(x):
    return torch.where(x >= 0, 1.0, -1.0), x.abs().mean(-1, keepdim=True), False


def mean64(x):
    return x.double().abs().mean(-1, keepdim=True).float()


methods = {
    "absmean": lambda x: ternary(x, mean64(x)),
    "absmedian": lambda x: ternary(x, x.abs().median(-1, keepdim=True).values),
    "lsq": lsq,
    "binary": binary,
    "int4": lambda x: absmax(x, -8, 7),
    "int8": lambda x: absmax(x, -128, 127),
}

x = rng.standard_normal((6, 48)) * np.exp(rng.uniform(-3, 3, (6, 1)))
x[1] = 0  # every magnitude below 1e-5
x[2, :16] = np.arange(16) - 7.5  # halves
x = torch.from_numpy(x.astype(np.float32))
for dtype_name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
    master = x.to(dtype)
    out[f"{dtype_name}.input"] = master.float().numpy()
    for name, method in methods.items():
        for kind in ("tensor", "row", "group"):
            g = groups(master.float(), kind)
            codes, s, divides = method(g)
            values = codes / s if divides else codes * s
            key = f"{dtype_name}.{name}.{kind}"
            out[key + ".codes"] = codes.reshape(6, 48).to(torch.int8).numpy()
            out[key + ".scales"] = s.reshape(-1).numpy()
            out[key + ".values"] = values.reshape(6, 48).to(dtype).float().numpy()
    # The formulas above are those of transformers.
    assert (bitnet.ActQuant.apply(master).float().numpy() == out[f"{dtype_name}.int8.row.values"]).all()
    weight = bitnet.WeightQuant.apply(master).float().numpy()
    assert np.allclose(weight, out[f"{dtype_name}.absmean.tensor.values"], rtol=1e-6)
    codes, s = bitnet.BitLinear.activation_quant(None, master.float())
    assert (codes.numpy() == out[f"{dtype_name}.int8.row.codes"]).all()


# Four bits with a zero point, as torch quantizes a channel.
v = groups(x, "group")
low, high = v.amin(-1).clamp(max=0), v.amax(-1).clamp(min=0)
scale = (high / 15 - low / 15).clamp(min=1e-5)
zero = (-low / scale).round().clamp(0, 15)
values = torch.fake_quantize_per_channel_affine(v, scale, zero.int(), 0, 0, 15)
out["uint4.scales"], out["uint4.zeros"] = scale.numpy(), zero.to(torch.uint8).numpy()
out["uint4.values"] = values.reshape(6, 48).numpy()


def hadamard(n):
    return np.ones((1, 1)) if n == 1 else np.kron(hadamard(n // 2), [[1, 1], [1, -1]])


for n in (1, 2, 8, 48, 128):
    v = rng.standard_normal((3, n)).astype(np.float32)
    size = n & -n
    h = hadamard(size) / np.sqrt(size)
    out[f"hadamard.{n}.input"] = v
    out[f"hadamard.{n}"] = (v.reshape(-1, size).astype(np.float64) @ h).reshape(3, n).astype(np.float32)

save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, pathlib.Path(__file__).parent / "quantizers.safetensors")
