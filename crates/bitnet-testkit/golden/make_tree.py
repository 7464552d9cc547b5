"""The golden of a model in the tree, by transformers in f32 on a CPU: NAME.golden.safetensors beside this file.

Run: python make_tree.py DIR NAME (as in requirements.txt), where DIR is the checkpoint that models/NAME.gguf holds, exported or
converted with `--to hf`. The embedding is rounded to f16, as in that file. Tokens are chosen as
`reference.py` says, each among the likely ones. Written: `input_ids`, `logits` [T, vocab], `hidden_states.0..` [T, hidden] and
`greedy_ids`, the ids followed by eight greedy tokens.
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file

from reference import MIN_GAP, TOKENS, Margins, greedy, load

LIKELY = 256  # candidates for each token

model = load(pathlib.Path(sys.argv[1]))
table = model.get_input_embeddings().weight
table.data = table.half().float()
margins = Margins(model)
ids, candidates = torch.empty(0, dtype=torch.long), torch.arange(LIKELY)
while len(ids) < TOKENS:
    batch = torch.cat([ids.expand(len(candidates), -1), candidates[:, None]], dim=1)
    logits, least = margins.run(model, batch)
    best = least[:, -1].argsort(descending=True)
    if len(ids) == TOKENS - 1:
        # Of those farthest from a boundary, the one whose greedy continuation is clearest.
        best = best[:16]
        best = best[greedy(model, margins, batch[best])[1].argsort(descending=True)]
    ids = batch[best[0]]
    likely = logits[best[0], -1]
    likely[ids] = -torch.inf  # no token twice
    candidates = likely.topk(LIKELY).indices
continued, gap, _ = greedy(model, margins, ids[None])
least = margins.run(model, ids[None])[1].min().item()
assert gap.item() > MIN_GAP, f"a greedy choice is close: {gap.item()}"
out = model(input_ids=ids[None], use_cache=False, output_hidden_states=True)
golden = {"input_ids": ids.int(), "greedy_ids": continued[0].int(), "logits": out.logits[0]}
for i, hidden in enumerate(out.hidden_states):
    golden[f"hidden_states.{i}"] = hidden[0]
golden = {name: tensor.contiguous().clone() for name, tensor in golden.items()}
path = pathlib.Path(__file__).parent / f"{sys.argv[2]}.golden.safetensors"
save_file(golden, path)
path.chmod(0o644)
print(f"{len(ids)} tokens, margin {least:.1e}, gap {gap.item():.2f}, greedy {continued[0, TOKENS:].tolist()}")
