"""Trains the chat model on a GPU with PyTorch, as `bitnet train configs/chat/chat.toml` does on a CPU.

Run: python train_chat.py TRAIN.tokens HELD_OUT.tokens OUT, where the token files are those of `bitnet tokenize` and OUT becomes
the `model.safetensors` of a Hugging Face directory with master weights. Each row is a dialogue; the loss counts the tokens that
the assistant writes. The layers are those of transformers' `BitNetForCausalLM` with `AutoBitLinear`, online.
"""

import sys
import time

import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

LAYERS, WIDTH, INNER, HEADS, KV_HEADS, CONTEXT = 4, 256, 768, 4, 2, 512
STEPS, BATCH, RATE, WARMUP, INIT_STD = 9000, 64, 2.5e-3, 200, 0.04
UNCOUNTED, ENDS, FOOTER = 1 << 31, 1 << 30, 16
HEAD = WIDTH // HEADS

torch.manual_seed(0)
torch.backends.cuda.matmul.allow_tf32 = True
device = "cuda"


def dialogues(path):
    """Inputs and targets `[dialogues, CONTEXT]` of a token file with marks; its vocabulary. -100 is no target."""
    data = open(path, "rb").read()
    assert data[:8] == b"BNTOKENS" and data[8] == 2, path
    words = numpy.frombuffer(data[32:-FOOTER], "<u4").astype(numpy.int64)
    ends = numpy.flatnonzero(words & ENDS) + 1
    inputs = numpy.zeros((len(ends), CONTEXT), numpy.int64)
    targets = numpy.full((len(ends), CONTEXT), -100, numpy.int64)
    for row, (start, end) in enumerate(zip([0, *ends[:-1]], ends)):
        words_of = words[start:end][: CONTEXT + 1]
        tokens = words_of & (ENDS - 1)
        inputs[row, : len(tokens) - 1] = tokens[:-1]
        targets[row, : len(tokens) - 1] = numpy.where(words_of[1:] & UNCOUNTED, -100, tokens[1:])
    vocabulary = int.from_bytes(data[16:20], "little")
    return torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device), vocabulary


def norm(x, weight):
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


def bit_linear(x, weight):
    scale = 127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    x = x + ((x * scale).round().clamp(-128, 127) / scale - x).detach()
    mean = weight.abs().mean().clamp(min=1e-5)
    return F.linear(x, weight + ((weight / mean).round().clamp(-1, 1) * mean - weight).detach())


def parameters(vocabulary):
    kv = KV_HEADS * HEAD
    shapes = {"model.embed_tokens": (vocabulary, WIDTH)}
    for i in range(LAYERS):
        layer = {
            "input_layernorm": (WIDTH,), "self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (kv, WIDTH),
            "self_attn.v_proj": (kv, WIDTH), "self_attn.attn_sub_norm": (WIDTH,), "self_attn.o_proj": (WIDTH, WIDTH),
            "post_attention_layernorm": (WIDTH,), "mlp.gate_proj": (INNER, WIDTH), "mlp.up_proj": (INNER, WIDTH),
            "mlp.ffn_sub_norm": (INNER,), "mlp.down_proj": (WIDTH, INNER),
        }
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm"] = (WIDTH,)
    new = {f"{n}.weight": torch.ones(s) if len(s) == 1 else torch.randn(s) * INIT_STD for n, s in shapes.items()}
    return {name: tensor.to(device).requires_grad_() for name, tensor in new.items()}


angles = torch.outer(torch.arange(CONTEXT), 10000.0 ** -(torch.arange(0, HEAD, 2) / HEAD))
cos, sin = (torch.cat([f(angles)] * 2, -1).to(device) for f in (torch.cos, torch.sin))


def rotated(x):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def loss(p, inputs, targets):
    rows = len(inputs)
    x = F.embedding(inputs, p["model.embed_tokens.weight"])
    for i in range(LAYERS):
        def get(name):
            return p[f"model.layers.{i}.{name}.weight"]

        h = norm(x, get("input_layernorm"))
        q, k, v = (
            bit_linear(h, get(f"self_attn.{n}_proj")).view(rows, CONTEXT, -1, HEAD).transpose(1, 2) for n in "qkv"
        )
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (rotated(k), v))
        h = F.scaled_dot_product_attention(rotated(q), k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + bit_linear(norm(h, get("self_attn.attn_sub_norm")), get("self_attn.o_proj"))
        h = norm(x, get("post_attention_layernorm"))
        h = F.relu(bit_linear(h, get("mlp.gate_proj"))).square() * bit_linear(h, get("mlp.up_proj"))
        x = x + bit_linear(norm(h, get("mlp.ffn_sub_norm")), get("mlp.down_proj"))
    counted = targets.flatten() != -100
    x = norm(x, p["model.norm.weight"]).flatten(0, 1)[counted]
    return F.cross_entropy(x @ p["model.embed_tokens.weight"].T, targets.flatten()[counted])


train, held_out, out = sys.argv[1:4]
inputs, targets, vocabulary = dialogues(train)
tests = dialogues(held_out)[:2]
p = parameters(vocabulary)
decayed = [t for n, t in p.items() if t.dim() == 2 and "embed" not in n]
others = [t for n, t in p.items() if t.dim() == 1 or "embed" in n]
groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), eps=1e-8, fused=True)
began, order = time.time(), torch.empty(0, dtype=torch.long, device=device)
for step in range(STEPS):
    if len(order) < BATCH:
        order = torch.randperm(len(inputs), device=device)
    rows, order = order[:BATCH], order[BATCH:]
    rate = RATE * min((step + 1) / WARMUP, 1 - max(step - WARMUP, 0) / (STEPS - WARMUP))
    for group in optimizer.param_groups:
        group["lr"] = rate
    value = loss(p, inputs[rows], targets[rows])
    value.backward()
    torch.nn.utils.clip_grad_norm_(list(p.values()), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if (step + 1) % 250 == 0:
        with torch.no_grad():
            test = loss(p, *tests)
        print(f"{step + 1}: {value.item():.4f}, held out {test.item():.4f}, {time.time() - began:.0f} s", flush=True)
        save_file({name: tensor.detach().cpu() for name, tensor in p.items()}, out, {"format": "pt"})
