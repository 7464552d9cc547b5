"""Makes the golden GGUF files: tiny random models in every architecture and type that occurs.

    pip install -r requirements.txt && python make_gguf.py [FILE...]

gguf/NAME.gguf comes with gguf/NAME.golden.safetensors, which transformers computed from the values that the
file decodes to (gguf-py decodes the types it knows). Ternary layers quantize their input per
token as BitNet does; dense layers do not quantize it.
"""

import os
import shutil
import sys
import tempfile
import zlib

import reference  # first: it sets the environment that torch reads
import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from gguf_writer import (BF16, F16, F32, F64, I2_S, IQ4_NL, MXFP4, PQ2_0, PTQ1_0, Q1_0, Q2_0, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K,
                         Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, STQ1_0, IQ1_BN, IQ2_BN, TQ1_0, TQ2_0, encode_i2_s, encode_iq_bn,
                         encode_ptq1_0, encode_q1_0, encode_q2_0, encode_stq1_0, write)
from make_checkpoints import HERE, LLAMA3, OFFLINE, bitnet, draw, llama, parameters, save_weights, ternary, write_json
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.bitnet import pack_weights

FOLDER = os.path.join(HERE, "gguf")
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.query_layernorm": "attn_q_norm", "self_attn.key_layernorm": "attn_k_norm",
    "self_attn.attn_sub_norm": "attn_sub_norm", "mlp.ffn_sub_norm": "ffn_sub_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "mlp.gate": "ffn_gate_inp", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


GEMMA_NAMES = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


QWEN35_NAMES = {
    "post_attention_layernorm": "post_attention_norm", "linear_attn.norm": "ssm_norm", "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate", "linear_attn.in_proj_a": "ssm_alpha", "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.conv1d": "ssm_conv1d", "linear_attn.out_proj": "ssm_out",
}


def gguf_name(name, arch):
    if name.endswith((".A_log", ".dt_bias")):
        return f"blk.{name.split('.')[2]}." + ("ssm_a" if name.endswith(".A_log") else "ssm_dt.bias")
    module, _, kind = name.rpartition(".")
    if module.startswith("model.layers."):
        _, _, layer, rest = module.split(".", 3)
        names = NAMES | {"gemma3": GEMMA_NAMES, "qwen35": QWEN35_NAMES}.get(arch, {})
        return f"blk.{layer}.{names[rest]}.{kind}"
    return f"{NAMES[module]}.{kind}"


def interleave(w, heads):
    """Rows of q or k in the order of the interleaved RoPE: the pairs (i, i + d/2) of a head side by side."""
    return w.reshape(heads, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def tiled(name, w, plain):
    """What belongs to heads of values: not those of one key head beside each other, but the first of each key head, and so on."""
    keys, values, width = plain.linear_num_key_heads, plain.linear_num_value_heads, plain.linear_value_head_dim
    order = np.arange(values).reshape(keys, -1).T.reshape(-1)
    if name.endswith("out_proj.weight"):
        return w.reshape(len(w), values, width)[:, order].reshape(w.shape)
    if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
        first = 2 * keys * plain.linear_key_head_dim
        rest = w[first:].reshape(values, width, -1)[order].reshape(w[first:].shape)
        return np.concatenate([w[:first], rest])
    if name.endswith("in_proj_z.weight"):
        return w.reshape(values, width, -1)[order].reshape(w.shape)
    return w[order] if name.endswith(("in_proj_a.weight", "in_proj_b.weight", ".A_log", ".dt_bias")) else w


def encode_dense(kind, w, generator):
    """f32 [rows, columns] -> (bytes, the values they decode to)"""
    if kind == Q1_0:
        data, decoded = encode_q1_0(w)
        return data, decoded.reshape(w.shape)
    if kind == F64:
        return w.astype("<f8").tobytes(), w
    if kind in BLOCK_SCALES:  # gguf-py only decodes these
        data = random_blocks(kind, w, generator)
    else:
        data = gguf.quants.quantize(w, T(kind))
    return data.tobytes(), gguf.quants.dequantize(data, T(kind)).astype(np.float32)


# Where a block has its f16 scale and minimum; the spread of random codes and scales in units of the scale, and the minimum that
# centres them on zero.
BLOCK_SCALES = {Q6_K: ((208,), 1368, 0), Q4_K: ((0, 2), 256, 7.5), Q5_K: ((0, 2), 512, 15.5), Q2_K: ((80, 82), 15, 1.5),
                Q3_K: ((108,), 45, 0), IQ4_NL: ((0,), 71, 0)}


def random_blocks(kind, w, generator):
    """Random codes under block scales that give them the spread of w."""
    block, size = gguf.GGML_QUANT_SIZES[T(kind)]
    data = torch.randint(256, (w.size // block, size), generator=generator).to(torch.uint8).numpy()
    d = w.std() * (0.5 + torch.rand(len(data), 1, generator=generator).numpy())
    places, spread, minimum = BLOCK_SCALES[kind]
    for at, value in zip(places, (d / spread, d / spread * minimum)):
        data[:, at:at + 2] = value.astype(np.float16).view(np.uint8)
    return data.reshape(len(w), -1)


def encode_ternary(form, w, scale):
    """ternary f32 [rows, columns], scale -> (type number, bytes); `form` is a key of the table of forms"""
    match form:
        case "i2_s":
            return I2_S, encode_i2_s(w, scale)
        case "i2_s-arm":
            return I2_S, encode_i2_s(w, scale, plane=16)
        case "q2_0-g64" | "q2_0-g128":
            return Q2_0, encode_q2_0(w, scale, int(form.split("-g")[1]))
        case "pq2_0":
            return PQ2_0, encode_q2_0(w, scale, 128)
        case "ptq1_0":
            return PTQ1_0, encode_ptq1_0(w, scale)
        case "iq1_bn" | "iq2_bn":
            return (IQ1_BN, encode_iq_bn(w, scale, 1)) if form == "iq1_bn" else (IQ2_BN, encode_iq_bn(w, scale, 2))
        case "stq1_0":
            return STQ1_0, encode_stq1_0(w, scale)
        case "tq1_0" | "tq2_0":
            kind = TQ1_0 if form == "tq1_0" else TQ2_0
            return kind, gguf.quants.quantize((w * scale).astype(np.float32), T(kind)).tobytes()


def metadata(config, arch, extra):
    plain = AutoConfig.for_model(**{k: v for k, v in config.items() if k != "quantization_config"})
    # GPT-2's printable letters for the 256 bytes, then a few merges and two control tokens
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letter = {byte: chr(byte) for byte in printable}
    letter |= {byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in letter)}
    merges = ["t h", "th e", "i n", "e r", "a n", "Ġ t", "Ġ a", "o n", "r e", "Ġ the", "an d", "in g", "Ġ s", "e n"]
    tokens = [letter[byte] for byte in (*printable, *(b for b in range(256) if b not in printable))]
    tokens += [merge.replace(" ", "") for merge in merges] + ["<|begin|>", "<|end|>"]
    assert len(tokens) == plain.vocab_size
    head_dim = getattr(plain, "head_dim", None) or plain.hidden_size // plain.num_attention_heads
    keys = {
        "vocab_size": plain.vocab_size, "context_length": plain.max_position_embeddings,
        "embedding_length": plain.hidden_size, "block_count": plain.num_hidden_layers,
        "feed_forward_length": plain.intermediate_size, "rope.dimension_count": head_dim,
        "attention.head_count": plain.num_attention_heads, "attention.head_count_kv": plain.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(plain.rms_norm_eps),
        "rope.freq_base": float(plain.rope_parameters.get("full_attention", plain.rope_parameters)["rope_theta"]),
    }
    everything = {
        "general.architecture": arch, "general.name": "golden", **{f"{arch}.{k}": v for k, v in keys.items()},
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [np.int32(1)] * 270 + [np.int32(3)] * 2, "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 270, "tokenizer.ggml.eos_token_id": 271,
        "tokenizer.ggml.add_bos_token": True, **extra,
    }
    return {key: v for key, v in everything.items() if v is not None}


def one_zero_in_four(w, generator):
    """Weights of which exactly one of four that are 16 apart is zero; zeros beside it become signs."""
    signs = torch.randint(2, w.shape, generator=generator) * 2.0 - 1
    w = torch.where(w == 0, signs, w).reshape(-1, 4, 16)
    place = torch.randint(4, (len(w), 1, 16), generator=generator)
    return w.scatter(1, place, 0.0).reshape(signs.shape)


def one_model(config, arch, linear, embedding, head, scale_tensors, block_scales, outliers, generator):
    """(tensors for the GGUF file, weights for transformers)"""
    plain = AutoConfig.for_model(**{k: v for k, v in config.items() if k != "quantization_config"})
    tensors, weights = {}, {}
    own_norms = config.get("quantization_config", {}).get("use_rms_norm")
    stacks = {}
    for name, shape in parameters(plain):
        if name == "lm_head.weight" and plain.tie_word_embeddings:
            continue
        # a small embedding, so that a tied head does not answer each token with itself
        w = draw(name, shape, generator, torch.float32, embedding=0.05 if arch == "gemma3" else 0.2)
        if outliers and name.endswith("layernorm.weight"):
            w[[3, 40]] *= 40  # channels far beyond the others, in the first block of 256
        projection = name.split(".")[-2]
        heads = {"q_proj": plain.num_attention_heads, "k_proj": plain.num_key_value_heads}.get(projection)
        order = (lambda v: interleave(v, heads)) if arch in ("llama", "minicpm") and heads else (lambda v: v)
        if ".experts." in name:
            if isinstance(linear, str):
                w, scale = ternary(w)
                scale = np.float32(np.float16(scale))
                weights[name] = w * float(scale)
                kind, data = encode_ternary(linear, w.numpy(), scale)
            else:
                kind = linear(projection)
                data, decoded = encode_dense(kind, w.numpy(), generator)
                weights[name] = torch.tensor(decoded)
            _, _, layer, *_ = name.split(".")
            stacks.setdefault((f"blk.{layer}.{NAMES[f'mlp.{projection}']}_exps.weight", kind, shape), []).append(data)
        elif name.endswith((".A_log", ".dt_bias", ".conv1d.weight")):
            stored = tiled(name, w.numpy(), plain)
            stored = -np.exp(stored) if name.endswith(".A_log") else stored.reshape(stored.shape[0], *stored.shape[2:])
            tensors[gguf_name(name, arch)] = F32, stored.shape, stored.tobytes()
            weights[name] = w
        elif arch == "qwen35" and w.dim() == 1:
            tensors[gguf_name(name, arch)] = F32, w.shape, w.numpy().tobytes()
            weights[name] = w if "linear_attn" in name else w - 1
        elif arch == "qwen35" and ".linear_attn." in name:
            data, _ = encode_dense(F16, tiled(name, w.numpy(), plain), generator)
            weights[name] = torch.tensor(encode_dense(F16, w.numpy(), generator)[1])
            tensors[gguf_name(name, arch)] = F16, w.shape, data
        elif name.endswith("mlp.gate.weight"):
            tensors[gguf_name(name, arch)] = F32, w.shape, w.numpy().tobytes()
            weights[name] = w
        elif w.dim() == 1 and own_norms:
            w = w.half().float()
            tensors[gguf_name(name, arch)] = F16, w.shape, w.half().numpy().tobytes()
            weights[name] = w - 1 if arch == "gemma3" else w
        elif w.dim() == 1:
            tensors[gguf_name(name, arch)] = F32, w.shape, w.numpy().tobytes()
            weights[name] = w - 1 if arch == "gemma3" else w
        elif isinstance(linear, str) and name.startswith("model.layers."):
            w, scale = ternary(w)
            scale = np.float32(np.float16(scale))
            if linear == "stq1_0":
                w = one_zero_in_four(w, generator)
            if block_scales:  # a scale to each block of 256, as a quantizer of arbitrary weights writes them
                blocks = (scale * (0.5 + torch.rand(w.numel() // 256, 1, generator=generator)).numpy())
                blocks = blocks.astype(np.float16).astype(np.float32)
                stored = (w.numpy().reshape(-1, 256) * blocks).reshape(w.shape)
                weights[name] = torch.tensor(stored)
                kind, data = encode_ternary(linear, order(stored), np.float32(1))
            elif config.get("quantization_config") is None:  # ternary, but inputs are not quantized
                weights[name] = w * float(scale)
                kind, data = encode_ternary(linear, order(w.numpy()), scale)
            else:
                weights[name] = pack_weights(w.clone())
                weights[name.replace(".weight", ".weight_scale")] = torch.tensor([scale])
                kind, data = encode_ternary(linear, order(w.numpy()), 1.0 if scale_tensors else scale)
                if own_norms:
                    norm = draw("norm", (w.shape[1],), generator, torch.float16)
                    weights[name.replace(".weight", ".rms_norm.weight")] = norm
                    stored = norm.half().numpy().tobytes()
                    tensors[gguf_name(name, arch).replace(".weight", "_norm_in.weight")] = F16, norm.shape, stored
            tensors[gguf_name(name, arch)] = kind, w.shape, data
            if scale_tensors:
                tensors[gguf_name(name, arch).replace(".weight", ".scale")] = F32, (1,), scale.tobytes()
        else:
            kind = embedding if "embed_tokens" in name else head if name == "lm_head.weight" else linear(projection)
            data, decoded = encode_dense(kind, order(w.numpy()), generator)
            if heads and arch in ("llama", "minicpm"):  # back to the order of the checkpoint
                decoded = decoded.reshape(heads, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
            weights[name] = torch.tensor(decoded)
            tensors[gguf_name(name, arch)] = kind, w.shape, data
    for (name, kind, shape), data in stacks.items():
        tensors[name] = kind, (len(data), *shape), b"".join(data)
    return tensors, weights


def make(name, config, arch, linear, *, embedding=F16, head=F16, scale_tensors=False, block_scales=False, outliers=False,
         extra={}, more_tensors={}, shared_seed=None, version=3, patch=lambda model: None):
    """One file. `linear` names a ternary type or maps a projection to a dense one."""
    path = os.path.join(FOLDER, name)
    for attempt in range(400):
        seed = zlib.crc32((shared_seed or name).encode()) % 100_000 + attempt
        generator = torch.Generator().manual_seed(seed)
        tensors, weights = one_model(config, arch, linear, embedding, head, scale_tensors, block_scales, outliers, generator)
        with tempfile.TemporaryDirectory() as loaded:
            write_json(f"{loaded}/config.json", config)
            save_weights(loaded, weights, 1, {})
            try:
                model = reference.load(loaded)
                patch(model)
                line = reference.write_golden(loaded, model, generator)
            except reference.Unstable as why:
                print(f"{name}: seed {seed} passed over: {why}", file=sys.stderr)
                continue
            shutil.copy(f"{loaded}/golden.safetensors", f"{path}.golden.safetensors")
        write(f"{path}.gguf", metadata(config, arch, {"golden.seed": seed, **extra}), tensors | more_tensors, version)
        print(f"{name}: seed {seed}, {os.path.getsize(path + '.gguf') // 1000} kB, {line}", flush=True)
        return
    raise SystemExit(f"{name}: no stable seed")


WIDE = {"vocab_size": 272, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1,
        "bos_token_id": 270, "eos_token_id": 271, "rope_theta": 10000.0}
NARROW = {**WIDE, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "quantization_config": None}
RELU2 = {"bitnet.hidden_activation": "relu2"}
UPSTREAM = {"bitnet.rope.scaling.type": "linear", "bitnet.rope.scaling.factor": 1.0}


def files():
    """File name -> arguments of make."""
    two_b = bitnet(OFFLINE, **WIDE)
    yield "bitnet-b1.58-i2_s", dict(config=two_b, arch="bitnet-b1.58", linear="i2_s", shared_seed="i2_s")
    yield "bitnet-b1.58-i2_s-arm", dict(config=two_b, arch="bitnet-b1.58", linear="i2_s-arm", shared_seed="i2_s")
    yield "bitnet-b1.58-i2_s-q6_k", dict(config=two_b, arch="bitnet-b1.58", linear="i2_s", embedding=Q6_K)
    # The older upload: a head of its own, scores, no pre-tokenizer.
    older = {"tokenizer.ggml.pre": None, "tokenizer.ggml.scores": [0.0] * 272}
    yield "bitnet-25-i2_s", dict(config=bitnet(OFFLINE, **WIDE, tie_word_embeddings=False), arch="bitnet-25",
                                 linear="i2_s", embedding=Q8_0, head=F16, extra=older)
    silu = two_b | {"hidden_act": "silu"}
    yield "bitnet-tq2_0", dict(config=silu, arch="bitnet", linear="tq2_0", extra=UPSTREAM)
    yield "bitnet-tq1_0-scale", dict(config=two_b, arch="bitnet", linear="tq1_0", embedding=Q8_0, scale_tensors=True,
                                     extra=UPSTREAM | RELU2)
    ternary_llama = llama(OFFLINE, **WIDE)
    mixed = dict(config=ternary_llama, arch="llama", extra={"bitnet.activations": "token"})
    yield "llama-tq2_0", dict(config=ternary_llama, arch="llama", linear="tq2_0", embedding=Q4_K, head=Q6_K)
    # Such weights are an ordinary model's, rounded: its layers do not quantize their inputs.
    plain = llama({}, **WIDE | {"quantization_config": None}) | {"tie_word_embeddings": True}
    yield "llama-tq2_0-block-scales", dict(config=plain, arch="llama", embedding=Q8_0, linear="tq2_0", block_scales=True,
                                           extra={"bitnet.activations": "float"})
    # As TriLM: ternary weights, inputs that were never rounded, of which some are far beyond the others. No key says so.
    yield "llama-tq2_0-outliers", dict(config=plain | {"hidden_size": 512, "intermediate_size": 256}, arch="llama",
                                       embedding=F16, linear="tq2_0", block_scales=True, outliers=True)
    yield "llama-q2_0-g64", dict(**mixed, linear="q2_0-g64", embedding=Q8_0, head=Q8_0)
    yield "llama-q2_0-g128", dict(**mixed, linear="q2_0-g128", embedding=Q8_0, head=Q8_0)
    yield "llama-pq2_0", dict(**mixed, linear="pq2_0", embedding=Q1_0, head=Q8_0)
    for kind in ("stq1_0", "iq1_bn", "iq2_bn"):
        yield f"llama-{kind}", dict(**mixed, linear=kind, embedding=Q8_0, head=Q8_0)
    yield "llama-ptq1_0", dict(**mixed, linear="ptq1_0", embedding=Q8_0, head=Q8_0)
    dense = llama({}, **NARROW)
    for name, kind in {"f16": F16, "bf16": BF16, "q8_0": Q8_0, "q4_0": Q4_0}.items():
        yield f"llama-{name}", dict(config=dense, arch="llama", linear=lambda _, kind=kind: kind, embedding=kind, head=kind)
    yield "llama-q8_0-v2", dict(config=dense, arch="llama", linear=lambda _: Q8_0, embedding=Q8_0, head=Q8_0,
                                shared_seed="llama-q8_0", version=2)
    head_dim = {"llama.attention.key_length": 24, "llama.attention.value_length": 24}
    yield "llama-f32-head-dim", dict(config=dense | {"head_dim": 24, "num_hidden_layers": 1}, arch="llama",
                                     linear=lambda _: F32, embedding=F32, head=F32, extra=head_dim)
    small = llama({}, **NARROW | {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1},
                  num_key_value_heads=1)
    yield "llama-q4_k-q6_k", dict(config=small, arch="llama", embedding=Q8_0, head=Q8_0,
                                  linear=lambda projection: Q6_K if projection in ("down_proj", "v_proj") else Q4_K)
    # Each projection of another type.
    for name, types, embedding, head in (
        ("llama-q5_0-q2_k", (Q4_1, Q5_0, Q5_1, IQ4_NL, Q2_K, Q3_K, Q5_K), MXFP4, Q5_0),
        ("llama-f64-tq1_0", (F64, MXFP4, F64, F32, Q8_0, IQ4_NL, Q4_1), TQ1_0, F64),
    ):
        kinds = dict(zip(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), types))
        yield name, dict(config=small, arch="llama", linear=kinds.get, embedding=embedding, head=head)
    for name, kind in {"q5_0": Q5_0, "q3_k": Q3_K, "tq2_0": TQ2_0}.items():
        yield f"bitnet-b1.58-i2_s-{name}", dict(config=two_b, arch="bitnet-b1.58", linear="i2_s", embedding=kind)
    scaled = dict(arch="llama", linear=lambda _: Q8_0, embedding=Q8_0, head=Q8_0)
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    yield "llama-rope-linear", dict(**scaled, config=dense | {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, extra=linear)
    factors = llama3_factors(head_dim=16, theta=10000.0)
    yield "llama-rope-llama3", dict(**scaled, config=dense | {"rope_scaling": LLAMA3},
                                    more_tensors={"rope_freqs.weight": (F32, (8,), factors.tobytes())})
    # Other architectures. Rows of q and k are not interleaved; ternary layers do not quantize their inputs.
    def qwen(version, **changes):
        config = {"architectures": [f"Qwen{version}ForCausalLM"], "model_type": f"qwen{version}"}
        return dict(arch=f"qwen{version}", config=llama({}, **NARROW | config | changes))

    q8_0 = dict(linear=lambda _: Q8_0, embedding=Q8_0, head=Q8_0)
    yield "qwen2-q8_0", dict(**qwen(2), **q8_0)
    sizes = {"qwen3.attention.key_length": 32, "qwen3.attention.value_length": 32}
    wide = dict(hidden_size=128, intermediate_size=128, num_hidden_layers=1, head_dim=32)
    yield "qwen3-q2_0-g128", dict(**qwen(3, **wide), linear="q2_0-g128", embedding=Q8_0, head=Q8_0, extra=sizes)
    # Original contexts of 16, which a text of 32 tokens exceeds. llama.cpp's attention factor of longrope is 1 by default.
    def scaling(arch, kind, **more):
        keys = {"type": kind, "original_context_length": 16, **more}
        return {f"{arch}.rope.scaling.{key}": v for key, v in keys.items()}

    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    yield "qwen2-rope-yarn", dict(**qwen(2, rope_scaling=yarn), **q8_0, extra=scaling("qwen2", "yarn", factor=4.0))
    lists = {"short": [1 + 0.1 * i for i in range(8)], "long": [1 + 0.7 * i for i in range(8)]}
    longrope = {"rope_type": "longrope", "original_max_position_embeddings": 16, "attention_factor": 1.0,
                **{f"{name}_factor": values for name, values in lists.items()}}
    tensors = {f"rope_factors_{name}.weight": (F32, (8,), np.float32(values).tobytes()) for name, values in lists.items()}
    base = 10000.0 * 50.0 ** (16 / 14)  # which converters compute from alpha
    hunyuan = {"architectures": ["HunYuanDenseV1ForCausalLM"], "model_type": "hunyuan_v1_dense", "rope_theta": base, "head_dim": 16}
    f16 = dict(linear=lambda _: F16, embedding=F16, head=F16)
    yield "hunyuan-f16", dict(arch="hunyuan-dense", config=llama({}, **NARROW | hunyuan), **f16)
    # Granite computes what MiniCPM does.
    scales = dict(embedding_multiplier=12.0, residual_multiplier=1.4 / 2 ** 0.5, attention_multiplier=0.25, logits_scaling=4.0)
    minicpm = llama({}, **NARROW | {"architectures": ["GraniteForCausalLM"], "model_type": "granite"} | scales)
    keys = {"embedding_scale": 12.0, "residual_scale": 1.4 / 2 ** 0.5, "logit_scale": 4.0}
    yield "minicpm-longrope", dict(
        arch="minicpm", config=minicpm | {"rope_scaling": longrope}, **f16, more_tensors=tensors,
        extra={**{f"minicpm.{key}": v for key, v in keys.items()}, **scaling("minicpm", "longrope")})
    # Without keys: the scales that llama.cpp assumes, but for the logits, which it divides by the inverse.
    yield "minicpm-no-keys", dict(arch="minicpm", config=minicpm | {"logits_scaling": 0.25}, **f16)
    # Norms are stored with the 1, the head is the embedding, the scale of scores is that of the heads.
    gemma = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_act": None, "pad_token_id": 0,
             "hidden_activation": "gelu_pytorch_tanh", "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 6,
             "tie_word_embeddings": True, "torch_dtype": None, "num_hidden_layers": 3}
    keys = {"gemma3.attention.key_length": 32, "gemma3.attention.value_length": 32, "gemma3.attention.sliding_window": 6}
    pattern = {"sliding_window_pattern": 2, "rope_local_base_freq": 5000.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    yield "gemma3-f16", dict(
        arch="gemma3", config=llama({}, **NARROW | gemma | pattern), **f16,
        extra={**keys, "gemma3.attention.sliding_window_pattern": 2, "gemma3.rope.freq_base_swa": 5000.0,
               "gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 4.0})
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    cap = {"layer_types": kinds, "final_logit_softcapping": 3.0, "hidden_size": 128, "intermediate_size": 128}
    yield "gemma3-q2_0-g128", dict(
        arch="gemma3", config=llama({}, **NARROW | gemma | cap), linear="q2_0-g128", embedding=F16,
        extra={**keys, "gemma3.final_logit_softcapping": 3.0,
               "gemma3.attention.sliding_window_pattern": [kind != "full_attention" for kind in kinds]})
    # BitNet-embedding. The pooling type is what its converter writes: the mean, where the last token is meant.
    own = {**OFFLINE, "use_rms_norm": True, "rms_norm_eps": 1e-6}
    small = {"hidden_size": 128, "intermediate_size": 128, "head_dim": 32, "tie_word_embeddings": True, "num_hidden_layers": 2}
    for arch, changes in (("qwen3", {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}), ("gemma3", gemma)):
        sizes = {f"{arch}.attention.key_length": 32, f"{arch}.attention.value_length": 32, f"{arch}.pooling_type": 1}
        window = {"gemma3.attention.sliding_window": 6} if arch == "gemma3" else {}
        yield f"{arch}-embedding-i2_s", dict(
            arch=arch, config=llama(own, **WIDE | changes | small), linear="i2_s", embedding=F16,
            extra={**sizes, **window, "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": True})
    # The matrices of all experts of a layer in one tensor; llama.cpp divides their factors by the sum, without a key.
    experts = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=128, norm_topk_prob=True, num_hidden_layers=1,
                   hidden_size=128, head_dim=32)
    config = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"}
    keys = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 128, "attention.key_length": 32,
            "attention.value_length": 32}
    moe = dict(arch="qwen3moe", config=llama({}, **NARROW | config | experts),
               extra={f"qwen3moe.{key}": v for key, v in keys.items()})
    yield "qwen3moe-q2_0-g128", dict(**moe, linear="q2_0-g128", embedding=F16)
    yield "qwen3moe-q5_0", dict(**moe, linear=lambda _: Q5_0, embedding=F16)
    maple = {"attention.sliding_window": 6, "attention.sliding_window_pattern": [True, False], "rope.dimension_count": 16,
             "swiglu_clamp_exp": [0.75] * 2, **keys}
    yield "maple-q2_0-g128", dict(
        arch="maple", config=llama({}, **NARROW | config | experts | {"num_hidden_layers": 2}), linear="q2_0-g128", embedding=F16,
        head=F16, extra={f"maple.{key}": v for key, v in maple.items()},
        patch=lambda model: reference.make_maple(model, [6, None], 16, 0.75))
    # Two key heads and six heads of values in llama.cpp's order; a block of a kind that predicts further tokens is passed over.
    delta = dict(head_dim=24, num_hidden_layers=3, full_attention_interval=3, linear_num_key_heads=2, linear_num_value_heads=6,
                 linear_key_head_dim=8, linear_value_head_dim=12, pad_token_id=0)
    qwen35 = {"architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text"} | delta
    keys = {"block_count": 4, "nextn_predict_layers": 1, "attention.key_length": 24, "attention.value_length": 24,
            "rope.dimension_count": 6, "rope.dimension_sections": [1, 1, 1, 0], "full_attention_interval": 3,
            "ssm.conv_kernel": 4, "ssm.state_size": 8, "ssm.group_count": 2, "ssm.time_step_rank": 6, "ssm.inner_size": 72}
    further = {"blk.3.nextn.eh_proj.weight": (F32, (4, 4), np.zeros(16, np.float32).tobytes())}
    yield "qwen35-f16", dict(arch="qwen35", config=llama({}, **NARROW | qwen35), **f16, more_tensors=further,
                             extra={f"qwen35.{key}": v for key, v in keys.items()})
    yield "llama-rope-longrope", dict(**scaled, config=dense | {"rope_scaling": longrope}, more_tensors=tensors,
                                      extra=scaling("llama", "longrope"))


def llama3_factors(head_dim, theta):
    """What each frequency is divided by, as converters write it to rope_freqs.weight."""
    config = AutoConfig.for_model(**llama({}, **NARROW, rope_scaling=LLAMA3))
    scaled = AutoModelForCausalLM.from_config(config).model.rotary_emb.inv_freq.numpy()
    return (theta ** (-np.arange(0, head_dim, 2) / head_dim) / scaled).astype(np.float32)


def check(name, arguments):
    """gguf-py must read back every file whose types it knows."""
    if str(arguments["linear"]).startswith(("i2_s", "q2_0", "pq2_0", "ptq1_0", "stq1_0", "iq")):
        return
    for tensor in gguf.GGUFReader(os.path.join(FOLDER, f"{name}.gguf")).tensors:
        if tensor.tensor_type != F64:  # read as it is
            assert np.isfinite(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).all(), tensor.name


if __name__ == "__main__":
    os.makedirs(FOLDER, exist_ok=True)
    for file, arguments in files():
        if len(sys.argv) == 1 or file in sys.argv[1:]:
            make(file, **arguments)
            check(file, arguments)
    # Two files of one model have one golden.
    for one, other in (("bitnet-b1.58-i2_s", "bitnet-b1.58-i2_s-arm"), ("llama-q8_0", "llama-q8_0-v2")):
        one, other = (load_file(f"{FOLDER}/{n}.golden.safetensors") for n in (one, other))
        assert all(torch.equal(one[key], other[key]) for key in one)
