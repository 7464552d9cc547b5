"""Writes tensors/*.json.gz: operations with their inputs and the outputs that PyTorch and NumPy define.

    pip install -r requirements.txt
    python make_tensors.py [group ...]

The format is told in tensor_cases/common.py; each group is a file there. Where NumPy and PyTorch mean different things the
cases hold PyTorch's, and u16, u32 and u64, which PyTorch barely computes with, continue its rules. Float functions are
evaluated to 140 bits and rounded once; PyTorch's own results are asserted to lie near. Nothing is random but for seeds.
"""

import importlib
import pathlib
import sys

GROUPS = [
    "elementwise", "binary", "compare", "promotion", "reduce", "scan", "index", "shape", "sort", "linalg", "neural",
]


def main():
    folder = pathlib.Path(__file__).parent / "tensors"
    folder.mkdir(exist_ok=True)
    total = size = 0
    for name in sys.argv[1:] or GROUPS:
        cases, packed = importlib.import_module(f"tensor_cases.{name}").make().write(folder)
        print(f"{name:12} {cases:6} cases {packed:9} bytes")
        total, size = total + cases, size + packed
    print(f"{'total':12} {total:6} cases {size:9} bytes")


if __name__ == "__main__":
    main()
