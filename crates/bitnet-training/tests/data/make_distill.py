"""Losses of distillation and their gradients by PyTorch, f64: distill.npz beside this file.

Run: python make_distill.py (PyTorch and NumPy as in crates/bitnet-testkit/golden/requirements.txt).
"""

import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

torch.manual_seed(20261121)
arrays = {}


def put(case, **tensors):
    for name, tensor in tensors.items():
        array = tensor.detach().numpy()
        arrays[f"{case}/{name}"] = array if array.dtype == np.int64 else array.astype(np.float32)


def leaf(*shape, scale=1.0):
    # Values that f32 holds.
    return (torch.randn(*shape) * scale).double().requires_grad_(True)


# Next tokens: 11 rows, two of them not counted; widths of student and teacher differ.
hidden, table = leaf(11, 6), leaf(17, 6)
taught, taught_table = leaf(11, 10), leaf(17, 10, scale=0.5)
targets = torch.randint(17, (11,))
targets[[3, 8]] = -100
temperature = 3.0
counted = targets >= 0
own = F.log_softmax(hidden @ table.T / temperature, -1)[counted]
theirs = F.softmax(taught @ taught_table.T / temperature, -1)[counted].detach()
loss = temperature**2 * F.kl_div(own, theirs, reduction="batchmean")
loss.backward()
put("logits", hidden=hidden, table=table, taught=taught, taught_table=taught_table, targets=targets, loss=loss)
put("logits", d_hidden=hidden.grad, d_table=table.grad)

# Relations: 2 texts of 5 tokens; student of width 8 (keys 4), teacher of 12 (keys 12); 2 relation heads.
batch, tokens, heads = 2, 5, 2
student, teacher = leaf(batch * tokens, 8 + 4 + 4), leaf(batch * tokens, 12 + 12 + 12)


def relations(x):
    x = x.view(batch, tokens, heads, -1).transpose(1, 2)
    return F.log_softmax(x @ x.transpose(-1, -2) / math.sqrt(x.shape[-1]), -1)


loss = 0
for own, theirs in zip(student.split([8, 4, 4], -1), teacher.split([12, 12, 12], -1)):
    own, theirs = relations(own), relations(theirs).detach()
    loss = loss + F.kl_div(own, theirs, reduction="sum", log_target=True) / (batch * heads * tokens)
loss.backward()
put("relations", student=student, teacher=teacher, loss=loss, d_student=student.grad)

np.savez_compressed(pathlib.Path(__file__).parent / "distill.npz", **arrays)
