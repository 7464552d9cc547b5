"""Norm, softmax, gates, rotary embedding and attention by PyTorch, for tests/float_golden.rs.

python float_ops.py   (torch 2.15.0)
writes float_ops.bin: the arrays in the order of the `emit` calls, each little-endian f32.
"""

import pathlib

import torch
import torch.nn.functional as F

torch.manual_seed(1)
out = b""


def emit(*arrays):
    global out
    for a in arrays:
        out += a.contiguous().numpy().astype("<f4").tobytes()


# RMSNorm as in transformers' BitNetRMSNorm: x, weight, y.
x, weight = torch.randn(3, 75) * 3, torch.randn(75)
y = weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))
emit(x, weight, y)

# Softmax of rows with large numbers: x, y.
x = torch.randn(4, 37) * 20
emit(x, x.softmax(-1))

# Gates: gate, up, silu(gate) * up, relu(gate)^2 * up.
gate, up = torch.randn(101) * 10, torch.randn(101)
emit(gate, up, F.silu(gate) * up, F.relu(gate).pow(2) * up)

# Rotary embedding as in transformers: inverse frequencies [16] at two thetas, then x [5, 3, 32] at positions 7..12, y.
def frequencies(theta, dim):
    return 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim))


emit(frequencies(10000.0, 32), frequencies(500000.0, 32))
angles = torch.arange(7, 12).float()[:, None] * frequencies(10000.0, 32)[None, :]
cos, sin = (torch.cat([f(angles)] * 2, -1)[:, None, :] for f in (torch.cos, torch.sin))
x = torch.randn(5, 3, 32)
rotated = torch.cat([-x[..., 16:], x[..., :16]], -1)
emit(x, x * cos + rotated * sin)

# Causal attention, 6 query heads on 2 key heads of 20, 3 tokens after 4: q [3, 6, 20], k and v [2, 7, 20], y [3, 6, 20].
q, k, v = torch.randn(3, 6, 20), torch.randn(2, 7, 20), torch.randn(2, 7, 20)
mask = torch.ones(3, 7).tril(4).bool()
y = F.scaled_dot_product_attention(
    q.transpose(0, 1), k.repeat_interleave(3, 0), v.repeat_interleave(3, 0), attn_mask=mask
)
emit(q, k, v, y.transpose(0, 1))
pathlib.Path(__file__).with_name("float_ops.bin").write_bytes(out)
