"""Writes golden.json: what Hugging Face's tokenizers make of sample.txt.

The merges that their trainer finds, and the ids that transformers gives with the tokenizer.json files beside this script,
which the test writes when it is run with BITNET_WRITE_GOLDEN=1. Run as: python make.py
"""

import json
import pathlib

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

here = pathlib.Path(__file__).parent
text = (here / "sample.txt").read_bytes().decode()
probes = [text, "the kids said — “so”\r\n\n  🦜 777 <|end|>x"]

bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
bpe.train_from_iterator(
    [text], trainers.BpeTrainer(vocab_size=319, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
)
golden = {"merges": json.loads(bpe.to_str())["model"]["merges"]}
for kind in ["char", "bytes", "bpe"]:
    tokenizer = AutoTokenizer.from_pretrained(here / kind)
    golden[kind] = {
        "ids": [tokenizer.encode(probe, add_special_tokens=False) for probe in probes],
        "eos": tokenizer.eos_token_id,
        "size": len(tokenizer),
    }
golden["probes"] = probes
(here / "golden.json").write_text(json.dumps(golden) + "\n")
