"""Makes the golden checkpoints that MLX quantized, with MLX itself (`pip install "mlx[cpu]"` beside requirements.txt).

    python make_mlx.py [FORM...]

mlx-llama has a number of bits for each projection, quantized by mlx.core.quantize; transformers is given the values in f32.
mlx-bitnet and mlx-bitnet-1bit have ternary and binary weights in the form of Bonsai: scale d and bias -d in 2 bits, 2d and -d
in 1 bit (which MLX does not make; packed here).
"""

import os
import shutil
import sys
import tempfile
import zlib

import make_checkpoints as base  # first: it sets the environment that torch reads
import mlx.core as mx
import numpy as np
import reference
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.bitnet import pack_weights

GROUP = 32
BITS = {"q_proj": 2, "k_proj": 3, "v_proj": 4, "o_proj": 5, "gate_proj": 6, "up_proj": 8, "down_proj": 4,
        "embed_tokens": 8, "lm_head": 6}


def mlx_quantized(w, bits):
    """(what the file stores, the values in f32)"""
    parts = mx.quantize(mx.array(w.numpy()).astype(mx.float16), group_size=GROUP, bits=bits)
    in_f32 = [parts[0], *(part.astype(mx.float32) for part in parts[1:])]
    values = np.array(mx.dequantize(*in_f32, group_size=GROUP, bits=bits))
    return [torch.from_numpy(np.array(part).copy()) for part in parts], torch.from_numpy(values.copy())


def bonsai(w, d, bits):
    """Ternary or binary weights of one magnitude; MLX reads the 2-bit form back."""
    codes = ((w if bits == 2 else (w + 1) / 2 - 1) + 1).numpy().astype(np.uint32)
    per_word = 32 // bits
    shifts = np.arange(per_word, dtype=np.uint32) * bits
    words = (codes.reshape(len(w), -1, per_word) << shifts).sum(2, dtype=np.uint32)
    groups = np.ones((len(w), w.shape[1] // GROUP), np.float16)
    parts = [words, groups * np.float16(d if bits == 2 else 2 * d), groups * np.float16(-d)]
    if bits == 2:
        values = mx.dequantize(*map(mx.array, parts), group_size=GROUP, bits=2)
        assert np.array_equal(np.array(values), (w * d).numpy().astype(np.float16))
    return [torch.from_numpy(part) for part in parts]


def make_weights(config, generator, form):
    """(tensors of the file, what transformers loads)"""
    plain = AutoConfig.for_model(**{k: v for k, v in config.items() if k != "quantization_config"})
    stored, loaded = {}, {}
    for name, like in AutoModelForCausalLM.from_config(plain).state_dict().items():
        if name == "lm_head.weight" and plain.tie_word_embeddings:
            continue
        w = base.draw(name, tuple(like.shape), generator, base.F16)
        module, _, kind = name.rpartition(".")
        if w.dim() == 1:
            stored[name], loaded[name] = w.to(base.F16), w
            continue
        if form == "mlx-llama" or "embed_tokens" in name:
            parts, loaded[name] = mlx_quantized(w, BITS[module.split(".")[-1]])
        else:
            bits = 1 if form.endswith("1bit") else 2
            w, scale = base.ternary(w) if bits == 2 else (torch.where(w < 0, -1.0, 1.0), w.abs().mean())
            scale = scale.half().float()
            loaded[name] = pack_weights(w.clone())
            loaded[f"{module}.weight_scale"] = scale.reshape(1)
            parts = bonsai(w, scale, bits)
        for part, value in zip(("weight", "scales", "biases"), parts):
            stored[f"{module}.{part}"] = value
    return stored, loaded


def quantization(form):
    if form != "mlx-llama":
        embedding = {"group_size": GROUP, "bits": BITS["embed_tokens"]}
        return {"group_size": GROUP, "bits": 1 if form.endswith("1bit") else 2, "model.embed_tokens": embedding}
    modules = {f"model.layers.{layer}.{block}.{name}": {"group_size": GROUP, "bits": BITS[name]}
               for layer in range(2)
               for block, names in (("self_attn", ["q_proj", "k_proj", "v_proj", "o_proj"]), ("mlp", ["gate_proj", "up_proj"]))
               for name in names}
    others = {name: {"group_size": GROUP, "bits": BITS[name.split(".")[-1]]} for name in ("model.embed_tokens", "lm_head")}
    return {"group_size": GROUP, "bits": BITS["down_proj"], "mode": "affine", **modules, **others}


def make(form, config):
    target = os.path.join(base.HERE, form)
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    for attempt in range(400):
        seed = zlib.crc32(form.encode()) % 100_000 + attempt
        generator = torch.Generator().manual_seed(seed)
        stored, loaded = make_weights(config, generator, form)
        with tempfile.TemporaryDirectory() as folder:
            base.write_json(f"{folder}/config.json", config)
            base.save_weights(folder, loaded, 1, {})
            try:
                line = reference.write_golden(target, reference.load(folder), generator)
            except reference.Unstable as why:
                print(f"{form}: seed {seed} passed over: {why}", file=sys.stderr)
                continue
        written = {k: v for k, v in config.items() if k != "quantization_config"}
        settings = quantization(form)
        base.write_json(f"{target}/config.json", written | {"quantization": settings, "quantization_config": settings})
        base.save_weights(target, stored, 1, {"seed": str(seed)})
        size = sum(entry.stat().st_size for entry in os.scandir(target))
        print(f"{form}: seed {seed}, {size // 1000} kB, {line}", flush=True)
        return
    raise SystemExit(f"{form}: no stable seed")


if __name__ == "__main__":
    sizes = {"hidden_size": 64, "intermediate_size": 96, "torch_dtype": "float16"}
    forms = {
        "mlx-llama": base.without_none(base.llama({}, **sizes) | {"quantization_config": None}),
        "mlx-bitnet": base.bitnet(base.OFFLINE, **sizes),
        "mlx-bitnet-1bit": base.bitnet(base.OFFLINE, **sizes),
    }
    for form, config in forms.items():
        if len(sys.argv) == 1 or form in sys.argv[1:]:
            make(form, config)
