"""What PyTorch and NumPy take for the rows of the dense benches, in microseconds: the least of several calls.

    python peers.py            # beside: cargo bench -p bitnet-kernels --bench dense --bench matmul

Results are preallocated where the library lets the caller give one. Each row: PyTorch with 1 and 2 threads, NumPy.
"""

import time

import numpy as np
import torch
import torch.nn.functional as F


def least(call, count):
    best = float("inf")
    for _ in range(count):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1e6


x, y, out = torch.randn(10**6), torch.randn(10**6), torch.empty(10**6)
square, row, square_out = torch.randn(1024, 1024), torch.randn(1024), torch.empty(1024, 1024)
wide, wide_out, weight = torch.randn(1024, 4096), torch.empty(1024, 4096), torch.randn(4096)
large, large_out = torch.randn(4096, 4096), torch.empty(4096, 4096)


def softmax():
    e = np.exp(wide.numpy() - wide.numpy().max(1, keepdims=True))
    e /= e.sum(1, keepdims=True)


rows = [
    ("add 1e6", lambda: torch.add(x, y, out=out), lambda: np.add(x.numpy(), y.numpy(), out=out.numpy()), 300),
    ("exp 1e6", lambda: torch.exp(x, out=out), lambda: np.exp(x.numpy(), out=out.numpy()), 300),
    ("gelu tanh 1e6", lambda: F.gelu(x, approximate="tanh"), None, 200),
    ("gelu erf 1e6", lambda: F.gelu(x), None, 200),
    ("broadcast add 1024x1024", lambda: torch.add(square, row, out=square_out), lambda: np.add(square.numpy(), row.numpy(), out=square_out.numpy()), 300),
    ("sum 1e6", lambda: x.sum(), lambda: x.numpy().sum(), 300),
    ("max 1e6", lambda: x.max(), lambda: x.numpy().max(), 300),
    ("sum axis 0 1024x4096", lambda: wide.sum(0), lambda: wide.numpy().sum(0), 100),
    ("sum axis 1 1024x4096", lambda: wide.sum(1), lambda: wide.numpy().sum(1), 100),
    ("var axis 0 1024x4096", lambda: wide.var(0), lambda: wide.numpy().var(0), 10),
    ("var axis 1 1024x4096", lambda: wide.var(1), lambda: wide.numpy().var(1), 10),
    ("softmax 1024x4096", lambda: torch._softmax(wide, 1, False, out=wide_out), softmax, 50),
    ("layer norm 1024x4096", lambda: F.layer_norm(wide, (4096,), weight, weight), None, 50),
    ("rms norm 1024x4096", lambda: F.rms_norm(wide, (4096,), weight), None, 30),
    ("transpose 1024", lambda: square_out.copy_(square.t()), lambda: np.copyto(square_out.numpy(), square.numpy().T), 100),
    ("transpose 4096", lambda: large_out.copy_(large.t()), lambda: np.copyto(large_out.numpy(), large.numpy().T), 8),
]
for n in (512, 1024, 2048):
    a, b = torch.randn(n, n), torch.randn(n, n)
    rows.append((f"matmul f32 {n}", lambda a=a, b=b: a @ b, lambda a=a, b=b: a.numpy() @ b.numpy(), 8))
    a, b = a.bfloat16(), b.bfloat16()
    rows.append((f"matmul bf16 {n}", lambda a=a, b=b: a @ b, None, 8))
for n in (1024, 2048):
    a, b = (torch.randint(-128, 127, (n, n), dtype=torch.int8) for _ in range(2))
    rows.append((f"matmul int8 {n}", lambda a=a, b=b: torch._int_mm(a, b), None, 8))
a, b = torch.randn(128, 2560).bfloat16(), torch.randn(6912, 2560).bfloat16()
rows.append(("linear bf16 128x2560x6912", lambda: F.linear(a, b), None, 8))
for n in (256, 1024):
    s = torch.randn(n, n)
    p = s @ s.T + n * torch.eye(n)
    count = 20 if n == 256 else 3
    rows.append((f"svd {n}", lambda s=s: torch.linalg.svd(s), lambda s=s: np.linalg.svd(s.numpy()), count))
    rows.append((f"qr {n}", lambda s=s: torch.linalg.qr(s), lambda s=s: np.linalg.qr(s.numpy()), count))
    rows.append((f"cholesky {n}", lambda p=p: torch.linalg.cholesky(p), lambda p=p: np.linalg.cholesky(p.numpy()), count))

print(f"{'':28}{'torch 1T':>10}{'torch 2T':>10}{'numpy':>10}")
for name, call, numpy_call, count in rows:
    times = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        times.append(least(call, count))
    numpy_time = f"{least(numpy_call, max(count // 2, 2)):10.0f}" if numpy_call else f"{'-':>10}"
    print(f"{name:28}{times[0]:10.0f}{times[1]:10.0f}{numpy_time}", flush=True)
