"""Makes golden adapters: PEFT on golden checkpoints (`pip install peft` beside requirements.txt), and one of them as GGUF.

    python make_lora.py

lora/NAME is a directory of PEFT with golden.safetensors: input_ids and logits of the base NAME with the adapter, and
merged_logits, of merged_input_ids, with it merged into the weights. The dense base also has half_logits, with half of the adapter's product.
"""

import os
import shutil
import sys
import zlib

import make_checkpoints as base  # first: it sets the environment that torch reads
import numpy as np
import reference
import torch
from gguf_writer import F32, write
from make_gguf import interleave
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

FOLDER = os.path.join(base.HERE, "lora")
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "qwen3": dict(r=4, lora_alpha=6, target_modules=[*ALL, "lm_head"], use_rslora=True, rank_pattern={"up_proj": 2},
                  alpha_pattern={"layers.1.self_attn.k_proj": 3}),
    "llama-online-sharded": dict(r=3, lora_alpha=12, target_modules=["q_proj", "k_proj", "down_proj"]),
    "bitnet-online-f32": dict(r=2, lora_alpha=2, target_modules=["v_proj", "gate_proj"]),
}


def make(name, settings):
    source, target = os.path.join(base.HERE, name), os.path.join(FOLDER, name)
    for attempt in range(40):
        seed = zlib.crc32(name.encode()) % 100_000 + attempt
        torch.manual_seed(seed)
        config = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, bias="none", **settings)
        adapted = get_peft_model(reference.load(source), config).eval()
        for parameter, value in adapted.named_parameters():
            if "lora_B" in parameter:
                value.mul_(0.1)  # small beside the base
        model = adapted.base_model.model
        margins, generator = reference.Margins(model), torch.Generator().manual_seed(seed)
        try:
            ids, _, _ = reference.choose_tokens(model, margins, generator)
        except reference.Unstable as why:
            print(f"{name}: seed {seed} passed over: {why}", file=sys.stderr)
            continue
        if margins.run(model, ids[None])[1].min() < reference.MIN_MARGIN:
            print(f"{name}: seed {seed} passed over: an activation lies near a boundary", file=sys.stderr)
            continue
        plain = reference.load(source)(input_ids=ids[None], use_cache=False).logits[0]
        golden = {"input_ids": ids.int(), "logits": model(input_ids=ids[None], use_cache=False).logits[0]}
        moved = ((golden["logits"] - plain).abs().max() / plain.abs().max()).item()
        assert moved > 0.02, f"{name}: the adapter moves the logits by {moved}"
        shutil.rmtree(target, ignore_errors=True)
        adapted.save_pretrained(target)
        os.remove(f"{target}/README.md")
        if name == "qwen3":
            layers = [module for module in adapted.modules() if hasattr(module, "scaling") and hasattr(module, "lora_A")]
            for layer in layers:
                layer.scaling["default"] /= 2
            golden["half_logits"] = model(input_ids=ids[None], use_cache=False).logits[0]
            for layer in layers:
                layer.scaling["default"] *= 2
        if name != "llama-online-sharded":
            merged = adapted.merge_and_unload()
            try:
                ids, _, _ = reference.choose_tokens(merged, margins, generator)
                if margins.run(merged, ids[None])[1].min() < reference.MIN_MARGIN:
                    raise reference.Unstable("an activation lies near a boundary")
            except reference.Unstable as why:
                print(f"{name}: seed {seed} passed over: merged, {why}", file=sys.stderr)
                continue
            golden["merged_input_ids"] = ids.int()
            golden["merged_logits"] = merged(input_ids=ids[None], use_cache=False).logits[0]
        save_file({key: value.contiguous().clone() for key, value in golden.items()}, f"{target}/golden.safetensors")
        print(f"{name}: seed {seed}, moved {moved:.2f}", flush=True)
        return
    raise SystemExit(f"{name}: no stable seed")


def make_gguf(name):
    """The same as llama.cpp's converter writes it: rows of B of q and k in the order of the architecture llama."""
    source, alpha = os.path.join(FOLDER, name), ADAPTERS[name]["lora_alpha"]
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "mlp.down_proj": "ffn_down"}
    heads = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}
    tensors = {}
    for key, value in load_file(f"{source}/adapter_model.safetensors").items():
        _, layer, rest = key.partition("layers.")[2].partition(".")
        layer, module, half = key.split("layers.")[1].split(".")[0], *rest.rsplit(".lora_", 1)
        if module in heads and half == "B.weight":
            value = torch.as_tensor(np.ascontiguousarray(interleave(value, heads[module])))
        path = f"blk.{layer}.{names[module]}.weight.lora_{half[0].lower()}"
        tensors[path] = F32, tuple(value.shape), value.numpy().astype(np.float32).tobytes()
    metadata = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
                "adapter.lora.alpha": float(alpha)}
    write(f"{FOLDER}/{name}.gguf", metadata, tensors)


if __name__ == "__main__":
    os.makedirs(FOLDER, exist_ok=True)
    for name, settings in ADAPTERS.items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            make(name, settings)
    make_gguf("llama-online-sharded")
