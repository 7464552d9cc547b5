"""Makes the seed corpora beside it. Run: python fuzz/seeds/make.py (Python 3, nothing else needed)."""

import base64
import io
import json
import pathlib
import struct
import zipfile

here = pathlib.Path(__file__).parent


def put(target, name, data):
    (here / target).mkdir(exist_ok=True)
    (here / target / name).write_bytes(data)


def string(s):
    return struct.pack("<Q", len(s)) + s.encode()


def gguf(version, entries, tensors):
    """entries: bytes; tensors: (name, dims innermost first, type number, bytes)."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries)) + b"".join(entries)
    offset, data = 0, b""
    for name, dims, number, size in tensors:
        out += string(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        out += struct.pack("<IQ", number, len(data))
        data += b"\x55" * size + b"\0" * (-size % 32)
    return out + b"\0" * (-len(out) % 32) + data


ARCH = string("general.architecture") + struct.pack("<I", 8) + string("bitnet")
ALIGN = string("general.alignment") + struct.pack("<II", 4, 32)
TOKENS = string("t") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("bc")
NESTED = string("n") + struct.pack("<IIQ", 9, 9, 2) + struct.pack("<IQ2B", 0, 2, 1, 2) + struct.pack("<IQf", 6, 1, 0.5)
NUMBERS = [string(f"k{i}") + struct.pack("<I" + f, i, 1) for i, f in enumerate("BbHhIif?")]
NUMBERS += [string(f"k{i}") + struct.pack("<I" + f, i, 1) for i, f in ((10, "Q"), (11, "q"), (12, "d"))]

put("gguf", "empty", gguf(3, [], []))
put("gguf", "version2", gguf(2, [ARCH], [("x", [4], 0, 16)]))
put("gguf", "metadata", gguf(3, [ALIGN, ARCH, NESTED, TOKENS] + NUMBERS, []))
put("gguf", "ternary", gguf(3, [ARCH], [("a", [128, 2], 36, 96), ("b", [256], 34, 54), ("c", [256], 35, 66), ("d", [3], 0, 12)]))
put("gguf", "q2_0", gguf(3, [], [("a", [64, 3], 42, 54), ("b", [128], 42, 36), ("c", [4, 2, 2], 1, 32)]))
put("gguf", "q2_0_128", gguf(3, [], [("a", [2048], 42, 544), ("b", [2048], 42, 544)]))
SPLIT = [string("split.no") + struct.pack("<IH", 2, 0), string("split.count") + struct.pack("<IH", 2, 2), string("split.tensors.count") + struct.pack("<Ii", 5, 2)]
put("gguf", "split", gguf(3, SPLIT, [("a", [4], 0, 16)]))
put("gguf", "named", gguf(3, [], [("a", [256], 39, 136), ("b", [256], 38, 96), ("c", [256], 13, 176)]))
DENSE = [(3, 160), (6, 176), (7, 192), (10, 84), (11, 110), (13, 176), (20, 144), (28, 2048), (39, 136)]
put("gguf", "dense", gguf(3, [], [(str(number), [256], number, size) for number, size in DENSE]))
put("gguf", "prism", gguf(3, [], [("a", [256], 41, 36), ("b", [256], 142, 68), ("c", [256], 143, 56)]))
put("gguf", "rows", gguf(3, [], [("a", [256, 2], 43, 84), ("b", [64, 3], 134, 45), ("c", [64, 3], 135, 60)]))
put("gguf", "stq1_0_early", gguf(3, [], [("a", [2048], 42, 336), ("b", [2048], 42, 336)]))
put("gguf", "unknown", gguf(3, [], [("a", [256], 99, 64), ("b", [256], 4000000000, 64)]))


def safetensors(header, size):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * size


def tensor(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def files(tensors):
    """name -> (dtype, shape, bytes)"""
    header, start = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name], start = tensor(dtype, shape, start, start + size), start + size
    return safetensors(header, start)


put("safetensors_header", "empty", safetensors({}, 0))
MODULES = [f"model.layers.0.{name}_proj" for name in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")]
QUANTIZED = {"model.embed_tokens.weight": ("U32", [4, 3], 48), "model.embed_tokens.scales": ("F16", [4, 1], 8),
             "model.embed_tokens.biases": ("F16", [4, 1], 8)}
for module in MODULES:
    QUANTIZED |= {f"{module}.weight": ("U32", [32, 2], 256), f"{module}.scales": ("F16", [32, 1], 64), f"{module}.biases": ("F16", [32, 1], 64)}
put("mlx", "quantized", files(QUANTIZED))
PEFT = {"peft_type": "LORA", "lora_alpha": 4, "r": 2, "use_rslora": True, "alpha_pattern": {"q_proj": 2}}
HALVES = {f"base_model.model.{MODULES[0]}.lora_{half}.weight": ("F32", shape, 64) for half, shape in (("A", [2, 8]), ("B", [8, 2]))}
put("adapter", "peft", json.dumps(PEFT).encode() + b"\0" + files(HALVES))
LORA = [string(key) + struct.pack("<I", 8) + string(text) for key, text in (("general.type", "adapter"), ("adapter.type", "lora"), ("general.architecture", "llama"))]
LORA += [string("adapter.lora.alpha") + struct.pack("<If", 6, 4)]
put("adapter", "gguf", gguf(3, LORA, [("blk.0.attn_q.weight.lora_a", [8, 2], 0, 64), ("blk.0.attn_q.weight.lora_b", [2, 8], 0, 64)]))
for i, name in enumerate(("owner/name", "a/b@v1:Q2_0", "a/b/c/d.gguf", "../a/b")):
    put("hub", str(i), name.encode())
put("safetensors_header", "packed", safetensors({
    "__metadata__": {"format": "pt"},
    "a.weight": tensor("U8", [2, 3], 0, 6),
    "a.weight_scale": tensor("BF16", [1], 6, 8),
}, 8))
put("safetensors_header", "floats", safetensors({"a": tensor("F32", [2], 0, 8), "b": tensor("F16", [], 8, 10)}, 10))
put("safetensors_header", "index", json.dumps({
    "metadata": {"total_size": 8},
    "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
}).encode())



def npy(version, text, data):
    text = text.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + data


def npz(method, *arrays):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in arrays:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=True) as entry:
                entry.write(data)
    return file.getvalue()


LITTLE = npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", b"\0" * 24)
BIG = npy(2, "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 1, 2), }\n", b"\1" * 8)
BOOL = npy(3, "{'descr': '|b1', 'fortran_order': False, 'shape': (), }\n", b"\1")
for name, data in {"little": LITTLE, "big": BIG, "bool": BOOL}.items():
    put("npy", name, data)
put("npz", "stored", npz(zipfile.ZIP_STORED, ("a.npy", LITTLE), ("b.npy", BIG)))
put("npz", "deflated", npz(zipfile.ZIP_DEFLATED, ("a.npy", BOOL), ("b.npy", LITTLE)))
put("npz", "safetensors", safetensors({"a": tensor("F32", [2], 0, 8), "b": tensor("BOOL", [1], 8, 9)}, 9))

SHAPE = {
    "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 2048, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
}
AUTO = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
for name, config in {
    "bitnet": {"model_type": "bitnet", "architectures": ["BitNetForCausalLM"], "hidden_act": "relu2",
               "rope_theta": 500000.0, "tie_word_embeddings": True, "quantization_config": AUTO},
    "online": {"model_type": "bitnet", "hidden_act": "relu2", "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
               "quantization_config": AUTO | {"quantization_mode": "online"}, "eos_token_id": [1, 2]},
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "head_dim": 64,
              "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                               "original_max_position_embeddings": 128},
              "quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["lm_head"], "use_rms_norm": True}},
    "1bitllm": {"model_type": "llama", "architectures": ["BitnetForCausalLM"], "hidden_act": "silu", "weight_bits": 1},
}.items():
    put("config", name, json.dumps(SHAPE | config).encode())

BPE = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "▁": 3, "<0x41>": 4}, "merges": [["a", "b"]], "byte_fallback": True}
SPM = {"model": BPE, "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
       "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
       "added_tokens": [{"id": 5, "content": "<s>", "special": True, "single_word": False, "lstrip": True, "rstrip": False, "normalized": False}],
       "post_processor": {"type": "RobertaProcessing", "cls": ["<s>", 5], "sep": ["<s>", 5], "trim_offsets": True, "add_prefix_space": True}}
T5 = {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁", -1.0], ["a", -2.5], ["▁a", -2.0]]},
      "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(struct.pack("<II", 4, 0) + bytes(1)).decode()},
      "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}, "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}}
put("tokenizer", "spm", json.dumps(SPM).encode())
put("tokenizer", "t5", json.dumps(T5).encode())
TALK = json.dumps({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a", "tool_calls": [{"x": 1.5}]}], "tools": [{"a": [None, True]}]})
TEMPLATES = {"loop": "{% for m in messages %}{{ m.role ~ m.content }}{% endfor %}{% if tools %}{{ tools | tojson(indent=2, sort_keys=true) }}{% endif %}",
             "macro": "{%- macro f(x) -%}{{ x.split('a')[-1].rsplit(',', 1) }}{%- endmacro -%}{{ f(messages[0].content) }}{{ messages }}{{ strftime_now('%-d %B %Q') }}"}
for name, source in TEMPLATES.items():
    put("chat_template", name, (source + "\0" + TALK).encode())
