"""Makes golden.safetensors, the reference of tests/golden.rs.

Versions: gguf 0.19.0, transformers 5.23.0, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
Run: python crates/bitnet-quant/tests/data/make.py

TQ1_0, TQ2_0, Q8_0: bytes and values from gguf-py. HF packing: from transformers. I2_S and Q2_0, which
gguf-py does not know: written out below from their description, one weight at a time.
"""

import pathlib

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from safetensors.numpy import save_file
from transformers.integrations import bitnet

rng = np.random.default_rng(7)
out = {}

# Ternary matrix [5, 512], its second block all zero; scale 0.0625 is an f16.
w = rng.integers(-1, 2, (5, 512)).astype(np.int8)
w[0, 256:] = 0
out["weights"] = w
x = w.astype(np.float32) * np.float32(0.0625)
for name, qtype in (("tq1_0", T.TQ1_0), ("tq2_0", T.TQ2_0)):
    q = gguf.quants.quantize(x, qtype)
    out[name] = q
    out[name + ".values"] = gguf.quants.dequantize(q, qtype)

# Arbitrary bytes: every digit byte and code 3 are dequantized as gguf-py does.
for name, qtype, size in (("tq1_0", T.TQ1_0, 54), ("tq2_0", T.TQ2_0, 66)):
    q = rng.integers(0, 256, (8, size)).astype(np.uint8)
    q[:, -2:] = np.array([0.5, -1.25, 3.0, 0.001, 7e-5, 100.0, 0.0, 1.0], np.float16).view(np.uint8).reshape(8, 2)
    out[name + ".any"] = q
    out[name + ".any.values"] = gguf.quants.dequantize(q, qtype)

# Q8_0 of values of many magnitudes, with exact halves and a block of zeros.
v = (rng.standard_normal((4, 128)) * np.exp(rng.uniform(-12, 6, (4, 1)))).astype(np.float32)
v[1, 32:64] = 0
v[2, :32] = np.arange(32) - 15.5
v[2, 31] = 127
v[3, :32] = rng.standard_normal(32) * 1e-9
out["q8_0.input"] = v
out["q8_0"] = gguf.quants.quantize(v, T.Q8_0)
out["bf16"] = gguf.quants.quantize(v, T.BF16)
out["f16"] = v.astype(np.float16).view(np.uint8)


def i2_s(w, block, scale):
    codes = (w.reshape(-1) + 1).astype(np.uint8)
    data = np.zeros(codes.size // 4, np.uint8)
    for i, c in enumerate(codes):
        b, j = divmod(i, block)
        quarter, g = divmod(j, block // 4)
        data[b * (block // 4) + g] |= c << (6 - 2 * quarter)
    tail = np.zeros(32, np.uint8)
    tail[:4] = np.array([scale], np.float32).view(np.uint8)
    return np.concatenate([data, tail])


out["i2_s.x86"] = i2_s(w, 128, 1.21875)
out["i2_s.arm"] = i2_s(w, 64, 1.21875)


def q2_0(codes, group, scale):
    rows = []
    for block in codes.reshape(-1, group):
        data = np.zeros(group // 4, np.uint8)
        for i, c in enumerate(block):
            data[i // 4] |= c << (2 * (i % 4))
        rows.append(np.concatenate([np.array([scale], np.float16).view(np.uint8), data]))
    return np.concatenate(rows)


for group in (64, 128):
    out[f"q2_0.{group}"] = q2_0((w + 1).astype(np.uint8), group, 0.0625)
any_codes = rng.integers(0, 4, (2, 128)).astype(np.uint8)
out["q2_0.any"] = q2_0(any_codes, 64, 1.5)
out["q2_0.any.values"] = (any_codes.astype(np.float32) - 1) * np.float32(1.5)

# HF packing of 10 rows: the last of the three packed rows is part padding.
h = torch.from_numpy(rng.integers(-1, 2, (10, 7)).astype(np.int8))
out["hf.weights"] = h.numpy().copy()
out["hf"] = bitnet.pack_weights(h.clone()).numpy()
p = torch.from_numpy(out["weights"][:4].copy())
out["hf.4rows"] = bitnet.pack_weights(p.clone()).numpy()
torch._dynamo.config.disable = True
assert (bitnet.unpack_weights(torch.from_numpy(out["hf.4rows"]), torch.int8) == p).all()

# Online quantization: WeightQuant on f32, f16 and bf16 masters, result in f32.
m = torch.from_numpy((rng.standard_normal((6, 40)) * 0.03).astype(np.float32))
for name, dtype in (("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16)):
    master = m.to(dtype).float()
    out[f"absmean.{name}.input"] = master.numpy()
    out[f"absmean.{name}"] = bitnet.WeightQuant.apply(master).numpy()

save_file(out, pathlib.Path(__file__).parent / "golden.safetensors")
