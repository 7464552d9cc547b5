"""Makes post_training.safetensors, the reference of tests/post_training.rs.

Versions: numpy 2.4.6, safetensors 0.8.0.
Run: python crates/bitnet-quant/tests/data/make_post_training.py

GPTQ as its paper has it: the Cholesky factor of the inverse Hessian, every column's error subtracted from the columns
after it, in the order of falling diagonals.
"""

import pathlib

import numpy as np
from safetensors.numpy import save_file

rng = np.random.default_rng(3)
rows, cols, tokens = 24, 40, 320
x = (rng.standard_normal((tokens, 12)) @ rng.standard_normal((12, cols)) + 0.3 * rng.standard_normal((tokens, cols)))
x = (x * np.exp(rng.uniform(-1, 1, cols))).astype(np.float32)
w = (0.05 * rng.standard_normal((rows, cols))).astype(np.float32)


def gptq(w, x, scale):
    h = x.T @ x / len(x)
    order = np.argsort(-np.diag(h), kind="stable")
    h = h[order][:, order] + 0.01 * np.diag(h).mean() * np.eye(cols)
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    work, codes = w[:, order].copy(), np.zeros_like(w)
    for k in range(cols):
        codes[:, k] = np.clip(np.rint(work[:, k] / scale), -1, 1)
        error = (work[:, k] - codes[:, k] * scale) / u[k, k]
        work[:, k:] -= np.outer(error, u[k, k:])
    out = np.zeros_like(codes)
    out[:, order] = codes
    return out


w64, x64 = w.astype(np.float64), x.astype(np.float64)
h = x64.T @ x64 / tokens


def loss(q):
    e = w64 - q
    return np.trace(e @ h @ e.T) / np.trace(w64 @ h @ w64.T)


mean = np.abs(w64).mean()
plain = np.clip(np.rint(w64 / mean), -1, 1) * mean
scale, best = mean, (loss(plain), plain / mean, mean)
for turn in range(9):
    codes = gptq(w64, x64, scale) if turn else plain / mean
    fitted = np.trace(w64 @ h @ codes.T) / np.trace(codes @ h @ codes.T)
    if loss(codes * fitted) >= best[0]:
        break
    best = (loss(codes * fitted), codes, fitted)
    scale = fitted
print("plain", loss(plain), "feedback", best[0])
out = {
    "weights": w,
    "inputs": x,
    "codes": best[1].astype(np.int8),
    "figures": np.array([loss(plain), best[0], best[2]]),
}
save_file(out, pathlib.Path(__file__).parent / "post_training.safetensors")
