"""Updates by torch.optim, and by the formulas of their papers in NumPy where PyTorch has none: optimizers.npz beside this file.

Run: python make_optimizers.py (PyTorch and NumPy as in crates/bitnet-testkit/golden/requirements.txt).
For each case the parameter `case/p0`, and for each step t = 1, 2, .. the gradient `case/g<t>` and the parameter after it,
`case/p<t>`. Step 4 and later use twice the learning rate: a schedule changes it. `blocks/..`: the 8-bit form of a tensor.
"""

import pathlib

import numpy as np
import torch

rng = np.random.default_rng(20261121)
arrays = {}
STEPS = 6


def data(shape, dtype=np.float64):
    start = rng.standard_normal(shape).astype(dtype)
    # Of very different sizes, one step all zero in a row.
    gradients = [(rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 2, shape)).astype(dtype) for _ in range(STEPS)]
    gradients[2][0] = 0
    return start, gradients


def write(name, start, gradients, results):
    arrays[f"{name}/p0"] = start
    for t, (g, p) in enumerate(zip(gradients, results), 1):
        arrays[f"{name}/g{t}"], arrays[f"{name}/p{t}"] = g, p


def by_torch(name, make, shape=(5, 7), dtype=np.float64):
    start, gradients = data(shape, dtype)
    p = torch.nn.Parameter(torch.tensor(start))
    optimizer = make([p])
    rate, results = optimizer.param_groups[0]["lr"], []
    for t, g in enumerate(gradients, 1):
        optimizer.param_groups[0]["lr"] = rate * (2 if t >= 4 else 1)
        p.grad = torch.tensor(g)
        optimizer.step()
        results.append(p.detach().numpy().copy())
    write(name, start, gradients, results)


O = torch.optim
by_torch("sgd", lambda p: O.SGD(p, lr=0.1))
by_torch("sgd_decay", lambda p: O.SGD(p, lr=0.1, weight_decay=0.05))
by_torch("sgd_momentum", lambda p: O.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.05))
by_torch("sgd_nesterov", lambda p: O.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.05, nesterov=True))
by_torch("adam", lambda p: O.Adam(p, lr=0.01))
by_torch("adam_decay", lambda p: O.Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1))
by_torch("adamw", lambda p: O.AdamW(p, lr=0.01, weight_decay=0.1))
by_torch("adamw_betas", lambda p: O.AdamW(p, lr=0.01, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.5))
by_torch("adamw_f32", lambda p: O.AdamW(p, lr=0.01, weight_decay=0.1), shape=(40, 33), dtype=np.float32)

# Muon: as PyTorch has it, its iterations in bf16, and with iterations in f64, `<case>_f64`.
def iterations_f64(g, coefficients, steps, eps):
    a, b, c = coefficients
    x = g.double() if g.shape[0] <= g.shape[1] else g.double().T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if g.shape[0] <= g.shape[1] else x.T


for name, shape, options in [
    ("muon_wide", (12, 30), {}),
    ("muon_tall", (30, 12), {}),
    ("muon_plain", (16, 16), dict(nesterov=False, momentum=0.9)),
    ("muon_adamw", (30, 12), dict(adjust_lr_fn="match_rms_adamw")),
]:
    make = lambda p: O.Muon(p, lr=0.02, weight_decay=0.1, **options)
    state = rng.bit_generator.state
    by_torch(name, make, shape, np.float32)
    rng.bit_generator.state = state
    in_bf16, torch.optim._muon._zeropower_via_newtonschulz = torch.optim._muon._zeropower_via_newtonschulz, iterations_f64
    by_torch(name + "_f64", make, shape, np.float64)
    torch.optim._muon._zeropower_via_newtonschulz = in_bf16
    worst = [np.abs(arrays[f"{name}/p{t}"] - arrays[f"{name}_f64/p{t}"]).max() for t in range(1, STEPS + 1)]
    print(name, "bf16 against f64, after each step:", *[f"{w:.1e}" for w in worst])

# The iterations alone, exactly: in f64, by their definition on the singular values.
for name, shape in [("wide", (6, 10)), ("tall", (10, 6))]:
    x = rng.standard_normal(shape)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    s = s / np.linalg.norm(x)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    arrays[f"newton_schulz_{name}/x"], arrays[f"newton_schulz_{name}/y"] = x, u * s @ vt

# Lion, algorithm 2 of Chen et al. 2023.
start, gradients = data((5, 7))
p, m, results = start.copy(), np.zeros_like(start), []
for t, g in enumerate(gradients, 1):
    rate, decay, b1, b2 = 0.003 * (2 if t >= 4 else 1), 0.1, 0.9, 0.99
    p = p - rate * (np.sign(b1 * m + (1 - b1) * g) + decay * p)
    m = b2 * m + (1 - b2) * g
    results.append(p)
write("lion", start, gradients, results)


# Moments in 8 bits: Dettmers et al. 2022, dynamic tree quantization in blocks of 256.
def values(signed):
    """A sign, then zeros that count the power of ten, then a fraction: the fewer zeros, the fewer its bits."""
    out = [0.0, 1.0]
    for exponent in range(7):
        edges = np.linspace(0.1, 1, 2 ** (exponent if signed else exponent + 1) + 1)
        middles = 10.0 ** (exponent - 6) * (edges[:-1] + edges[1:]) / 2
        out += [*middles, *(-middles if signed else [])]
    assert len(out) == 256
    return np.sort(np.float32(out))


def encode(x, signed):
    flat = np.concatenate([x.ravel(), np.zeros(-x.size % 256, np.float32)]).reshape(-1, 256)
    scales = np.abs(flat).max(1)
    normal = flat / np.where(scales == 0, np.float32(1), scales)[:, None]
    codes = np.abs(normal[..., None] - values(signed)).argmin(-1).astype(np.uint8)
    return codes.ravel()[: x.size].reshape(x.shape), scales


def decode(codes, scales, signed):
    per_element = np.repeat(scales, 256)[: codes.size].reshape(codes.shape)
    return values(signed)[codes] * per_element


for name, signed in [("signed", True), ("unsigned", False)]:
    x = (rng.standard_normal((9, 77)) * 10.0 ** rng.integers(-6, 1, (9, 77))).astype(np.float32)
    x = x if signed else np.abs(x)
    codes, scales = encode(x, signed)
    for key, value in dict(x=x, codes=codes, scales=scales, back=decode(codes, scales, signed)).items():
        arrays[f"blocks_{name}/{key}"] = value

start, gradients = data((60, 70), np.float32)
p, results = start.copy(), []
m, v = encode(np.zeros_like(p), True), encode(np.zeros_like(p), False)
f = np.float32
for t, g in enumerate(gradients, 1):
    rate, decay, b1, b2, eps = 0.01 * (2 if t >= 4 else 1), 0.1, 0.9, 0.999, 1e-8
    full_m, full_v = decode(*m, True), decode(*v, False)
    full_m = full_m + f(1 - b1) * (g - full_m)
    full_v = f(b2) * full_v + f(1 - b2) * (g * g)
    root = np.sqrt(full_v) / f(np.sqrt(1 - b2**t)) + f(eps)
    p = p * f(1 - rate * decay) - f(rate / (1 - b1**t)) * (full_m / root)
    m, v = encode(full_m, True), encode(full_v, False)
    results.append(p)
write("adamw_8bit", start, gradients, results)

np.savez_compressed(pathlib.Path(__file__).parent / "optimizers.npz", **arrays)
