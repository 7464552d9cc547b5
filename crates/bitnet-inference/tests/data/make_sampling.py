"""Makes sampling.json, the reference of tests/sampling.rs: what the logits processors of transformers keep, and with what
probabilities.

Run: python crates/bitnet-inference/tests/data/make_sampling.py
(PyTorch and transformers as in crates/bitnet-testkit/golden/requirements.txt).
Logits are multiples of 2^-16, so that JSON gives them exactly. A case has the names of `Sampling`, the tokens of the text
(`seen`), the tokens that are kept and their probabilities. The order is that of `generate` with `do_sample`.
"""

import json
import pathlib

import torch
from transformers import GenerationConfig
from transformers.generation import logits_process as lp
from transformers.generation.utils import GenerationMixin

torch.manual_seed(20261127)
VOCAB = 400
logits = {
    "normal": torch.randn(VOCAB) * 2.5,
    "peaked": torch.randn(VOCAB) + torch.nn.functional.one_hot(torch.tensor(123), VOCAB) * 6,
    "flat": torch.randperm(VOCAB) / 2**14,
}
logits = {name: (x * 2**16).round() / 2**16 for name, x in logits.items()}
for x in logits.values():
    assert x.unique().numel() == VOCAB, "ties are cut otherwise here"


class Model(GenerationMixin):
    """Only what `generate` asks to list its processors."""

    def __init__(self):
        self.config = type("Config", (), {"is_encoder_decoder": False})()


def processors(case):
    config = GenerationConfig(
        do_sample=True,
        temperature=case.get("temperature", 1.0),
        top_k=case.get("top_k", 0),
        top_p=case.get("top_p", 1.0),
        min_p=case.get("min_p"),
        typical_p=case.get("typical_p", 1.0),
        repetition_penalty=case.get("repeat_penalty", 1.0),
        sequence_bias={(token,): bias for token, bias in case["logit_bias"]} if "logit_bias" in case else None,
    )
    return Model()._get_logits_processor(config, input_ids_seq_length=1)


settings = [
    {"temperature": 0.6},
    {"temperature": 1.7},
    {"top_k": 10},
    {"top_p": 0.9},
    {"top_p": 0.3},
    {"min_p": 0.05},
    {"typical_p": 0.8},
    {"typical_p": 0.2},
    {"repeat_penalty": 1.3, "seen": [1, 5, 123, 399], "top_k": 50},
    {"logit_bias": [[3, 4.0], [123, -8.0]], "repeat_penalty": 1.5, "seen": [3, 9, 11]},
    {"temperature": 0.7, "top_k": 100, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.9},
    {"temperature": 1.4, "top_p": 0.8, "typical_p": 0.6, "repeat_penalty": 1.1, "seen": [0, 2, 4, 123]},
]
cases = []
for name, x in logits.items():
    for case in settings:
        seen = torch.tensor([case.get("seen", [])], dtype=torch.long)
        steps = processors(case)
        kinds = [type(step) for step in steps]
        assert kinds == [k for k in (lp.SequenceBiasLogitsProcessor, lp.RepetitionPenaltyLogitsProcessor,
                                     lp.TemperatureLogitsWarper, lp.TopKLogitsWarper, lp.TopPLogitsWarper,
                                     lp.MinPLogitsWarper, lp.TypicalLogitsWarper) if k in kinds]
        p = steps(seen, x[None].clone()).double().softmax(-1)[0]
        kept = p.nonzero()[:, 0]
        cases.append({"logits": name, **case, "tokens": kept.tolist(), "probabilities": [float(f"{v:.9g}") for v in p[kept]]})
        print(name, case, len(kept))

lines = ",\n".join(json.dumps(case) for case in cases)
text = '{"logits": %s,\n"cases": [\n%s\n]}\n' % (json.dumps({n: x.tolist() for n, x in logits.items()}), lines)
pathlib.Path(__file__).with_name("sampling.json").write_text(text)
