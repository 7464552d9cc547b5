"""Tokens a second of a training step of the 5 M-parameter model in PyTorch: Hugging Face transformers' BitNet classes with
AutoBitLinear online, AdamW, f32 and bf16 autocast, eager and compiled.

Run: python peers.py [--threads 2] [--batch 32] [--tokens 256] [--steps 5] [--only f32-eager ...]
Each variant runs in a process of its own and prints its tokens a second (the best of the steps) and its peak memory.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

VARIANTS = ["f32-eager", "bf16-eager", "f32-compiled", "bf16-compiled"]
SHAPE = dict(
    vocab_size=2048,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    rms_norm_eps=1e-5,
    hidden_act="relu2",
    tie_word_embeddings=True,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
)


def one(variant, args):
    if variant.endswith("eager"):
        os.environ["TORCH_COMPILE_DISABLE"] = "1"
    import torch
    from transformers import BitNetConfig, BitNetForCausalLM
    from transformers.integrations.bitnet import replace_with_bitnet_linear
    from transformers.utils.quantization_config import BitNetQuantConfig

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = BitNetForCausalLM(BitNetConfig(**SHAPE, attn_implementation="sdpa"))
    weights = {key: p.detach().clone() for key, p in model.named_parameters()}
    quantization = BitNetQuantConfig(linear_class="autobitlinear", quantization_mode="online")
    replace_with_bitnet_linear(model, ["lm_head"], quantization)
    model.load_state_dict(weights, assign=True, strict=False)
    model.tie_weights()
    model.requires_grad_(True)
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(SHAPE["vocab_size"], (args.batch, args.tokens + 1))
    x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def loss_of(x, y):
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.startswith("bf16")):
            logits = model(input_ids=x).logits
        return torch.nn.functional.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), y.reshape(-1))

    step_loss = torch.compile(loss_of) if variant.endswith("compiled") else loss_of
    best = float("inf")
    for _ in range(args.steps + 2):
        start = time.perf_counter()
        loss = step_loss(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        best = min(best, time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    speed = args.batch * args.tokens / best
    print(f"{variant:14} {speed:8.0f} tokens/s  peak {peak:6.0f} MB  loss {loss.item():.4f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=VARIANTS)
    parser.add_argument("--variant")
    args = parser.parse_args()
    if args.variant:
        return one(args.variant, args)
    for variant in args.only:
        common = ["--threads", args.threads, "--batch", args.batch, "--tokens", args.tokens, "--steps", args.steps]
        subprocess.run([sys.executable, __file__, "--variant", variant, *map(str, common)], check=True)


main()
