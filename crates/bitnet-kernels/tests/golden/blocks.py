"""Random blocks of each type and what gguf-py makes of them, for tests/blocks.rs.

python blocks.py   (gguf 0.19.0, numpy 2.4.6)
writes blocks.bin: for each type in turn its blocks, then their weights in little-endian f32.
"""

import pathlib

import gguf
import numpy as np

rng = np.random.default_rng(1)
BLOCKS = {"F32": 40, "F16": 40, "BF16": 40, "Q8_0": 6, "Q6_K": 3, "Q4_0": 6, "Q4_K": 3, "Q4_1": 6, "Q5_0": 6, "Q5_1": 6, "Q2_K": 3,
          "Q3_K": 3, "Q5_K": 3, "IQ4_NL": 6, "MXFP4": 6}
# Where a block keeps its f16 scales: random bytes there could be infinite or not a number.
SCALES = {"F16": [0], "Q8_0": [0], "Q6_K": [208], "Q4_0": [0], "Q4_K": [0, 2], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
          "Q2_K": [80, 82], "Q3_K": [108], "Q5_K": [0, 2], "IQ4_NL": [0]}

out = b""
for name, count in BLOCKS.items():
    kind = gguf.GGMLQuantizationType[name]
    _, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in SCALES.get(name, []):
        blocks[:, at : at + 2] = rng.normal(0, 0.02, (count, 1)).astype("<f2").view(np.uint8)
    if name == "MXFP4":
        blocks[:, 0] = np.minimum(blocks[:, 0], 252)  # beyond, 6 times the power of two is infinite
        blocks[:3, 0] = [0, 1, 252]  # the first two scales are subnormal
    if name in ("F32", "BF16"):
        blocks[:, -1] &= 0xBF  # below 2, and so finite
    weights = gguf.quants.dequantize(blocks, kind).astype("<f4")
    assert np.isfinite(weights).all()
    out += blocks.tobytes() + weights.tobytes()
pathlib.Path(__file__).with_name("blocks.bin").write_bytes(out)
