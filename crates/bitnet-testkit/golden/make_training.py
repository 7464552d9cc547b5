"""Training by Hugging Face transformers and PyTorch in f32: training.safetensors and training.json beside this file, for
crates/bitnet-training/tests/transformers.rs.

Run: python make_training.py (as in requirements.txt).
Two models are trained for 50 steps of AdamW on the same batches: a BitNetForCausalLM whose linear layers are AutoBitLinear,
online, and a dense Llama. Written: the weights before the first step (`name/initial/*`), the gradient of every parameter in
it (`name/grad/*`), the weights after it (`name/after/*`), the ids of all batches (`name/ids`, [50, B, T + 1]) and, in
training.json, the loss of every step.
"""

import json
import os
import pathlib

os.environ["TORCH_COMPILE_DISABLE"] = "1"

import torch
from safetensors.torch import save_file
from transformers import BitNetConfig, BitNetForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.bitnet import replace_with_bitnet_linear
from transformers.utils.quantization_config import BitNetQuantConfig

STEPS, BATCH, TOKENS, VOCAB = 50, 4, 24, 64
SHAPE = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
    rms_norm_eps=1e-5,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
)
ADAMW = dict(lr=2e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)


def batches(seed):
    """Sequences with something to learn: each token is the last plus a step that the sequence keeps."""
    g = torch.Generator().manual_seed(seed)
    start = torch.randint(VOCAB, (STEPS, BATCH, 1), generator=g)
    step = torch.randint(1, 5, (STEPS, BATCH, 1), generator=g)
    return (start + step * torch.arange(TOKENS + 1)) % VOCAB


def train(name, model, ids, tensors):
    parameters = dict(model.named_parameters())
    tensors[f"{name}/ids"] = ids
    for key, p in parameters.items():
        tensors[f"{name}/initial/{key}"] = p.detach().clone()
    optimizer = torch.optim.AdamW(parameters.values(), **ADAMW)
    losses = []
    for step in range(STEPS):
        x, y = ids[step, :, :-1], ids[step, :, 1:]
        logits = model(input_ids=x).logits.float()
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), y.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            for key, p in parameters.items():
                tensors[f"{name}/grad/{key}"] = p.grad.clone()
        optimizer.step()
        if step == 0:
            for key, p in parameters.items():
                tensors[f"{name}/after/{key}"] = p.detach().clone()
        losses.append(loss.item())
    return losses


def main():
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    tensors, losses = {}, {}
    torch.manual_seed(1)
    model = BitNetForCausalLM(BitNetConfig(**SHAPE, hidden_act="relu2", tie_word_embeddings=True, rope_theta=10000.0))
    quantization = BitNetQuantConfig(linear_class="autobitlinear", quantization_mode="online")
    weights = {key: p.detach().clone() for key, p in model.named_parameters()}
    replace_with_bitnet_linear(model, ["lm_head"], quantization)
    model.load_state_dict(weights, assign=True, strict=False)
    model.tie_weights()
    model.requires_grad_(True)
    losses["bitnet"] = train("bitnet", model, batches(2), tensors)
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, hidden_act="silu", tie_word_embeddings=False))
    losses["llama"] = train("llama", model, batches(4), tensors)
    here = pathlib.Path(__file__).parent
    save_file({k: v.contiguous() for k, v in tensors.items()}, here / "training.safetensors")
    (here / "training.json").write_text(json.dumps({"adamw": ADAMW, "shape": SHAPE, "losses": losses}, indent=1) + "\n")
    print({k: (v[0], v[-1]) for k, v in losses.items()})


main()
