"""The golden of the model in the tree, by transformers in f32 on a CPU: shakespeare.golden.safetensors beside this file.

Run: python make_tree.py DIR (as in requirements.txt), where DIR is the run exported with `bitnet export RUN DIR --to hf --best`,
the checkpoint that models/shakespeare.gguf holds. The embedding is rounded to f16, as in that file. Written: `input_ids`,
`logits` [T, vocab], `hidden_states.0..` [T, hidden] and `greedy_ids`, the ids followed by eight greedy tokens.
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from reference import GREEDY, load

TEXT = "ROMEO:\nBut, soft! what light through yonder window breaks?"
directory = pathlib.Path(sys.argv[1])
model = load(directory)
table = model.get_input_embeddings().weight
table.data = table.half().float()
ids = torch.tensor([Tokenizer.from_file(str(directory / "tokenizer.json")).encode(TEXT).ids])
out = model(input_ids=ids, use_cache=False, output_hidden_states=True)
greedy = ids
for _ in range(GREEDY):
    greedy = torch.cat([greedy, model(input_ids=greedy, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
golden = {"input_ids": ids[0].int(), "greedy_ids": greedy[0].int(), "logits": out.logits[0]}
for i, hidden in enumerate(out.hidden_states):
    golden[f"hidden_states.{i}"] = hidden[0]
golden = {name: tensor.contiguous().clone() for name, tensor in golden.items()}
save_file(golden, pathlib.Path(__file__).parent / "shakespeare.golden.safetensors")
print(len(golden["input_ids"]), "tokens")
