"""Writes torch_names.txt: for each method of docs/operations.md, what PyTorch calls it.

Run: python crates/bitnet-testkit/golden/make_torch_names.py
Needs torch==2.15.0. A name that the documentation of the code gives is checked to exist; a method without one gets the
function or the method of torch.Tensor of its own name, if there is one.
"""

import pathlib
import re

import torch

# Of another name, or of the same but another thing.
OTHERS = {"index": "torch.Tensor.__getitem__", "layout": None, "dtype": None, "device": None, "shape": None}

here = pathlib.Path(__file__).parent
lines = []
for line in (here / "../../../docs/operations.md").read_text().splitlines():
    if not (row := re.match(r"\| `(\w+)` \| (?:`([\w.]+)`)? \|", line)):
        continue
    method, said = row.groups()
    name = said.removeprefix("torch.") if said else method
    names = [f"torch.{name}", f"torch.Tensor.{name}"]
    if method in OTHERS:
        names = [OTHERS[method]] if OTHERS[method] else []
    for name in names:
        try:
            found = eval(name)
        except AttributeError:
            continue
        if callable(found):
            lines.append(f"{method} {name}\n")
            break
    else:
        assert not said, f"PyTorch has no {said}, which the documentation of {method} names"
(here / "torch_names.txt").write_text("".join(sorted(lines)))
print(len(lines), "names")
