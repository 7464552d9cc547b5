"""Makes the files that bitnet-core's readers are tested with, beside the tests in crates/bitnet-core/tests/data.

Run: python crates/bitnet-testkit/golden/make_files.py
Needs numpy==2.4.6, safetensors==0.8.0, torch==2.15.0.

Every file holds, for each dtype NAME, an array `NAME` of shape (2, 3) with the values 0, 1, ..., 5 (bool: odd or even;
signed: 1 less, floats: halved), and the corners `scalar` (7.5), `empty` of shape (0, 4) and `cube` = arange(24) of (2, 3, 4).
"""

import io
import pathlib
import zipfile

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors.torch import save_file

out = pathlib.Path(__file__).parents[2] / "bitnet-core/tests/data"
out.mkdir(parents=True, exist_ok=True)

base = np.arange(6).reshape(2, 3)
arrays = {"bool": base % 2 == 1}
for bits in (8, 16, 32, 64):
    arrays[f"u{bits}"] = base.astype(f"u{bits // 8}")
    arrays[f"i{bits}"] = (base - 1).astype(f"i{bits // 8}")
for bits in (16, 32, 64):
    arrays[f"f{bits}"] = (base / 2).astype(f"f{bits // 8}")
corners = {
    "scalar": np.array(7.5, "f4"),
    "empty": np.zeros((0, 4), "f4"),
    "cube": np.arange(24, dtype="i2").reshape(2, 3, 4),
}

# safetensors, with bf16, metadata, and tensors whose names want escaping.
tensors = {name: torch.from_numpy(a.copy()) for name, a in (arrays | corners).items()}
tensors["bf16"] = (torch.arange(6).reshape(2, 3) / 2).bfloat16()
tensors['odd "name"\\ \u00fc'] = torch.ones(1)
save_file(tensors, out / "torch.safetensors", metadata={"format": "pt", "note": "made by torch"})

# npz, stored and deflated.
np.savez(out / "stored.npz", **arrays, **corners, **{"\u00fc": np.ones(1)})
np.savez_compressed(out / "deflated.npz", **arrays, **corners, long=np.zeros(5000))

# npy: every version, order and byte order, in one archive of files for itself.
with zipfile.ZipFile(out / "npy.zip", "w") as archive:

    def put(name, array, version=None):
        file = io.BytesIO()
        npy.write_array(file, array, version=version, allow_pickle=True)
        archive.writestr(zipfile.ZipInfo(name), file.getvalue())

    for name, a in (arrays | corners).items():
        put(f"little/{name}", a)
        put(f"big/{name}", a.astype(a.dtype.newbyteorder(">")))
        put(f"fortran/{name}", np.array(a, order="F"))
    for version in ((1, 0), (2, 0), (3, 0)):
        put(f"version/{version[0]}", corners["cube"], version)
    put("refused/complex", np.zeros(2, "c8"))
    put("refused/text", np.array(["ab"]))
    put("refused/bytes", np.array([b"ab"]))
    put("refused/void", np.zeros(2, "V2"))
    put("refused/records", np.zeros(2, [("a", "f4"), ("b", "i4")]))
    put("refused/objects", np.array([None, 1], dtype=object))
    put("refused/dates", np.zeros(2, "M8[s]"))
    put("refused/longdouble", np.zeros(2, "g"))
