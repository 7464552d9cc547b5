"""What a small call costs beside NumPy called from Python, in one run: python crates/bitnet-core/benches/overhead.py"""

import subprocess
import timeit

import numpy as np

a, b, out = (np.ones(4, np.float32) for _ in range(3))
x, y = np.ones((4, 4), np.float32), np.ones((4, 4), np.float32)
NUMPY = {
    "add": lambda: np.add(a, b),
    "add_into": lambda: np.add(a, b, out=out),
    "matmul": lambda: np.matmul(x, y),
    "transpose": lambda: x.T,
}
# The call of the lambda itself is Python's.
EMPTY = min(timeit.repeat(lambda: None, number=20000, repeat=20)) / 20000 * 1e9

command = ["cargo", "bench", "-q", "-p", "bitnet-core", "--bench", "overhead"]
lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
ours = {name: float(ns) for ns, name in (line.split() for line in lines)}
print(f"{'':12}{'ours, ns':>10}{'NumPy, ns':>11}{'ratio':>8}")
for name, call in NUMPY.items():
    numpy = min(timeit.repeat(call, number=20000, repeat=20)) / 20000 * 1e9 - EMPTY
    print(f"{name:12}{ours[name]:10.1f}{numpy:11.1f}{ours[name] / numpy:8.2f}")
