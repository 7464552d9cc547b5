"""Holds the tensor files that bitnet-core writes against NumPy, safetensors and PyTorch.

    mkdir written
    BITNET_WRITE_FILES=$PWD/written cargo test -p bitnet-core --test serialize files_for_numpy_and_pytorch
    BITNET_WRITE_FILES=$PWD/written cargo test -p bitnet-core --lib numbers_of_64_bits
    python crates/bitnet-testkit/golden/check_files.py written

Needs numpy==2.4.6, safetensors==0.8.0, torch==2.15.0.
"""

import pathlib
import sys
import zipfile

import numpy as np
import safetensors.numpy
import torch
from safetensors import safe_open
from safetensors.torch import load_file

folder = pathlib.Path(sys.argv[1])
base = np.arange(6).reshape(2, 3)
expected = {"bool": base % 2 == 1}
for bits in (8, 16, 32, 64):
    expected[f"u{bits}"] = base.astype(f"u{bits // 8}")
    expected[f"i{bits}"] = (base - 1).astype(f"i{bits // 8}")
for bits in (16, 32, 64):
    expected[f"f{bits}"] = (base / 2).astype(f"f{bits // 8}")
line = np.arange(24, dtype="f4").reshape(2, 3, 4)
expected |= {
    "scalar": np.array(7.5, "f4"),
    "empty": np.zeros((0, 4), "f4"),
    "none": np.zeros((3, 0), "u1"),
    "transposed": line.transpose(2, 1, 0),
    "part": line[:, 1:3],
    "nothing of it": line[2:],
}


def check(kind, arrays):
    assert set(arrays) == set(expected), set(arrays) ^ set(expected)
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype and array.shape == expected[name].shape, (kind, name, array)
        assert np.array_equal(array, expected[name]), (kind, name, array)
    print(f"{kind}: {len(arrays)} arrays are what they should be")


for name in ("stored.npz", "deflated.npz"):
    assert zipfile.ZipFile(folder / name).testzip() is None
    with np.load(folder / name, allow_pickle=False) as archive:
        check(name, dict(archive))
with zipfile.ZipFile(folder / "zip64.zip") as archive:
    assert archive.testzip() is None
    assert [archive.read(name) for name in ("a.npy", "b.npy")] == [b"hello"] * 2
check("npy", {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in expected})
check("npy, mapped", {n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in expected if expected[n].size} |
      {n: a for n, a in expected.items() if not a.size})

ours = folder / "ours.safetensors"
tensors = load_file(ours)
bf16 = tensors.pop("bf16")
assert bf16.dtype == torch.bfloat16 and bf16.float().equal(torch.from_numpy((base / 2).astype("f4"))), bf16
check("safetensors, torch", {name: t.numpy() for name, t in tensors.items()})
with safe_open(ours, "numpy") as file:
    assert file.metadata() == {"format": "pt", "note": "ü \"quoted\""}, file.metadata()
    check("safetensors, numpy", {name: file.get_tensor(name) for name in file.keys() if name != "bf16"})
