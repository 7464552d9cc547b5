"""Makes calibration.safetensors, the reference of tests/calibration.rs.

Versions: torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
Run: python crates/bitnet-quant/tests/data/make_calibration.py
"""

import pathlib

import numpy as np
from safetensors.numpy import save_file

rng = np.random.default_rng(5)
out = {}
# Batches of growing magnitude, with outliers.
x = (rng.standard_normal((8, 500)) * np.linspace(0.2, 2, 8)[:, None]).astype(np.float32)
x[3, 7], x[6, 2] = 21.5, -19.25
out["data"] = x
a = np.abs(x.astype(np.float64)).reshape(-1)
limit = 32.0  # the power of two above 21.5
out["histogram"] = np.histogram(a, bins=4096, range=(0, limit))[0].astype(np.int64)
percents = np.array([0.0, 10.0, 50.0, 90.0, 99.0, 99.9, 100.0])
out["percents"] = percents
out["percentiles"] = np.percentile(a, percents)
for name, top in (("int8", 127), ("int4", 7), ("ternary", 1)):
    limits = a.max() * np.arange(1, 257) / 256
    errors = []
    for clip in limits:
        step = clip / top
        errors.append(((a - np.minimum(np.rint(a / step), top) * step) ** 2).sum())
    out[f"mse.{name}"] = np.array([limits[np.argmin(errors)], min(errors)])

save_file(out, pathlib.Path(__file__).parent / "calibration.safetensors")
