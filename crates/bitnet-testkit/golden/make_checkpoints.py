"""Makes the golden checkpoints: a tiny random model in every form in which Hugging Face checkpoints occur.

    pip install -r requirements.txt && python make_checkpoints.py [FORM...]

Each form becomes a directory with config.json, its weights and golden.safetensors (see README.md).
Every draw comes from a seed that is written into the weights' metadata; seeds whose golden
would depend on a rounding are passed over (see reference.py).
"""

import json
import os
import shutil
import sys
import tempfile
import zlib

import reference  # first: it sets the environment that torch reads
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.bitnet import pack_weights

HERE = os.path.dirname(os.path.abspath(__file__))
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
RENAME_1BITLLM = {"self_attn.attn_sub_norm": "self_attn.inner_attn_ln", "mlp.ffn_sub_norm": "mlp.ffn_layernorm"}


def draw_linear(shape, generator, dtype):
    """Heavy-tailed weights, rounded to dtype, none of which lies on the edge between two ternary values."""
    while True:
        w = torch.randn(shape, generator=generator) * shape[1] ** -0.5
        w *= torch.where(torch.rand(shape, generator=generator) < 0.01, 4.0, 1.0)
        w *= torch.exp(0.3 * torch.randn((), generator=generator))
        w = w.to(dtype).float()
        steps = (w / w.abs().mean()).abs()
        if ((steps - 0.5).abs().min() > 1e-5) and ((steps - 1.5).abs().min() > 1e-5):
            return w


def draw(name, shape, generator, dtype, embedding=0.7):
    if "norm" in name:
        w = 1 + 0.25 * torch.randn(shape, generator=generator)
        w[torch.randint(shape[0], (2,), generator=generator)] *= 3
    elif name.endswith(".A_log"):
        w = torch.log(0.2 + 2 * torch.rand(shape, generator=generator))
    elif name.endswith(".conv1d.weight"):
        w = 0.5 * torch.randn(shape, generator=generator)
    elif name.endswith((".bias", ".dt_bias")):
        w = 0.2 * torch.randn(shape, generator=generator)
    elif "embed_tokens" in name:
        w = embedding * torch.randn(shape, generator=generator)
    else:
        return draw_linear(shape, generator, dtype)
    return w.to(dtype).float()


def ternary(w):
    scale = w.abs().mean().clamp(min=1e-5)
    return (w / scale).round().clamp(-1, 1), scale


def parameters(plain):
    """name, shape of the tensors of a checkpoint: the matrices of experts, which transformers stacks when it loads them, apart."""
    for name, like in AutoModelForCausalLM.from_config(plain).state_dict().items():
        layer, _, kind = name.rpartition(".experts.")
        if not layer:
            yield name, tuple(like.shape)
            continue
        names = ("gate_proj", "up_proj") if kind == "gate_up_proj" else (kind,)
        for expert in range(len(like)):
            for one in names:
                yield f"{layer}.experts.{expert}.{one}.weight", (like.shape[1] // len(names), like.shape[2])


def make_weights(config, generator, dtype, scale_dtype, dense, unpacked):
    """name -> tensor as the checkpoint stores it; dense(linear name) says which linear layers stay plain."""
    quant = config.get("quantization_config", {})
    auto = quant.get("linear_class") == "autobitlinear"
    online = quant.get("quantization_mode") == "online"
    plain = AutoConfig.for_model(**{k: v for k, v in config.items() if k != "quantization_config"})
    weights = {}
    for name, shape in parameters(plain):
        if name == "lm_head.weight" and plain.tie_word_embeddings:
            continue
        w = draw(name, shape, generator, dtype)
        linear, _, kind = name.rpartition(".")
        quantized = kind == "weight" and w.dim() == 2 and "embed_tokens" not in name and not dense(linear)
        if quantized and quant.get("use_rms_norm"):
            weights[f"{linear}.rms_norm.weight"] = draw("norm", (w.shape[1],), generator, dtype).to(dtype)
        if quantized and not (auto and online):
            w, scale = ternary(w)
            weights[f"{linear}.weight_scale"] = (scale if auto else 1 / scale).reshape(1).to(scale_dtype)
            weights[name] = w.to(dtype) if unpacked else pack_weights(w)
        else:
            weights[name] = w.to(dtype)
    return weights


def save_weights(directory, weights, shards, metadata):
    metadata = {"format": "pt", **metadata}
    if shards == 1:
        save_file(weights, f"{directory}/model.safetensors", metadata)
        return
    names = sorted(weights)
    files = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i * len(names) // shards : (i + 1) * len(names) // shards]
        save_file({n: weights[n] for n in part}, f"{directory}/{file}", metadata)
        files |= {n: file for n in part}
    size = sum(w.numel() * w.element_size() for w in weights.values())
    write_json(f"{directory}/model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": files})


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def is_head(linear):
    return linear == "lm_head"


def make(form, config, *, dtype=BF16, scale_dtype=BF16, dense=is_head, unpacked=False, shards=1, written=None,
         edit=lambda weights: weights, patch=lambda model: None):
    """One form. `config` is what transformers loads; `written` (config, renames) is what we store where it
    differs; `edit` changes the weights before both; `patch` changes the loaded model."""
    target = os.path.join(HERE, form)
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    for attempt in range(400):
        seed = zlib.crc32(form.encode()) % 100_000 + attempt
        generator = torch.Generator().manual_seed(seed)
        weights = edit(make_weights(config, generator, dtype, scale_dtype, dense, unpacked))
        stored_config, renames = written or (config, {})
        with tempfile.TemporaryDirectory() as loaded:
            write_json(f"{loaded}/config.json", config)
            save_weights(loaded, weights, shards, {})
            try:
                model = reference.load(loaded)
                patch(model)
                line = reference.write_golden(target, model, generator)
            except reference.Unstable as why:
                print(f"{form}: seed {seed} passed over: {why}", file=sys.stderr)
                continue
        for old, new in renames.items():
            weights = {name.replace(old, new): w for name, w in weights.items()}
        write_json(f"{target}/config.json", stored_config)
        save_weights(target, weights, shards, {"seed": str(seed)})
        size = sum(entry.stat().st_size for entry in os.scandir(target))
        print(f"{form}: seed {seed}, {size // 1000} kB, {line}", flush=True)
        return
    raise SystemExit(f"{form}: no stable seed")


def bitnet(quant, **changes):
    config = {
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "vocab_size": 128, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "hidden_act": "relu2", "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "bitnet", **quant},
    }
    return without_none(config | changes)


def llama(quant, **changes):
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": False,
    }
    return without_none(bitnet(quant) | config | changes)


def dense(model_type, name, **changes):
    """A family without quantization, as it is before it is made ternary."""
    config = {"architectures": [name], "model_type": model_type, "quantization_config": None, "num_key_value_heads": 2}
    return dict(config=llama({}, **config | changes), dense=lambda linear: True)


def without_none(config):
    """None removes a key; null inside a nested table stays."""
    return {key: value for key, value in config.items() if value is not None}


OFFLINE = {"linear_class": "autobitlinear", "quantization_mode": "offline"}
ONLINE = {"linear_class": "autobitlinear", "quantization_mode": "online"}
BITLINEAR = {}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}


def forms():
    """Form name -> arguments of make."""
    yield "bitnet-offline", dict(config=bitnet(OFFLINE))
    yield "bitnet-offline-unpacked", dict(config=bitnet(OFFLINE), unpacked=True)
    yield "bitnet-online-bf16", dict(config=bitnet(ONLINE))
    yield "bitnet-online-f16", dict(config=bitnet(ONLINE, torch_dtype="float16"), dtype=F16)
    # Sizes that are no multiple of a vector: head dimension 10, intermediate 100.
    odd = dict(hidden_size=40, intermediate_size=100, vocab_size=125, torch_dtype="float32")
    yield "bitnet-online-f32", dict(config=bitnet(ONLINE, **odd), dtype=F32)
    yield "bitnet-bitlinear", dict(config=bitnet(BITLINEAR, hidden_size=40, intermediate_size=100), scale_dtype=F32)
    yield "bitnet-rope-theta", dict(config=bitnet(OFFLINE, rope_theta=20000.0, tie_word_embeddings=False))
    rope = {"rope_type": "default", "rope_theta": 30000.0}
    yield "bitnet-rope-parameters", dict(config=bitnet(OFFLINE, rope_theta=None, rope_parameters=rope))
    yield "bitnet-bias-offline", dict(config=bitnet(OFFLINE, attention_bias=True))
    yield "bitnet-bias-bitlinear", dict(config=bitnet(BITLINEAR, attention_bias=True))
    # A head is stored although the configuration says that it is tied.
    yield "bitnet-tied-with-head", dict(config=bitnet(OFFLINE), edit=add_head)
    few = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "quantization_config")
    absent = bitnet(BITLINEAR, hidden_size=80)  # 20 heads and 5 key-value heads are the class's defaults
    yield "bitnet-absent-keys", dict(config={key: absent[key] for key in few})
    absent = llama(BITLINEAR)
    yield "llama-absent-keys", dict(config={key: absent[key] for key in (*few, "num_attention_heads")})

    yield "llama-bitlinear", dict(config=llama({"modules_to_not_convert": None}))
    named = {"modules_to_not_convert": ["lm_head"]}
    yield "llama-bitlinear-head-dim", dict(config=llama(named, head_dim=24, num_key_value_heads=1), scale_dtype=F16)
    # An empty list is not "absent": the head is quantized as well.
    yield "llama-quantized-head", dict(config=llama({"modules_to_not_convert": []}), dense=lambda linear: False)
    some = ["lm_head", "model.layers.0.self_attn", "up_proj", r"model.layers.\d+.mlp.gate_proj"]
    yield "llama-dense-projections", dict(
        config=llama({**ONLINE, "modules_to_not_convert": some}, tie_word_embeddings=True, intermediate_size=64),
        dense=lambda linear: is_head(linear) or "layers.0.self_attn." in linear or linear.endswith(("up_proj", "gate_proj")))
    # "model.layers.1" keeps layer 1 dense, but not layer 10.
    yield "llama-dense-layer", dict(
        config=llama({**ONLINE, "modules_to_not_convert": ["lm_head", "model.layers.1"]}, num_hidden_layers=11,
                     hidden_size=32, intermediate_size=32, vocab_size=96, tie_word_embeddings=True),
        dense=lambda linear: is_head(linear) or linear.startswith("model.layers.1."))
    yield "llama-online-sharded", dict(config=llama(ONLINE, rope_theta=12345.0, tie_word_embeddings=True), shards=3)
    inner = {"use_rms_norm": True}
    yield "llama-inner-norm-online", dict(config=llama({**ONLINE, **inner}))
    yield "llama-inner-norm-offline", dict(config=llama({**OFFLINE, **inner, "rms_norm_eps": 1e-2}))
    yield "llama-inner-norm-bitlinear", dict(config=llama({**BITLINEAR, **inner}))
    yield "llama-bias-online", dict(config=llama(ONLINE, attention_bias=True, mlp_bias=True, intermediate_size=64))

    new = {"rope_theta": 500000.0, **LLAMA3}
    yield "llama-rope-llama3", dict(config=llama(BITLINEAR, rope_theta=None, rope_parameters=new))
    yield "llama-rope-llama3-scaling", dict(config=llama(BITLINEAR, rope_theta=500000.0, rope_scaling=LLAMA3))
    new = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    yield "llama-rope-linear", dict(config=llama(BITLINEAR, rope_theta=None, rope_parameters=new))
    yield "llama-rope-linear-scaling", dict(config=llama(BITLINEAR, rope_scaling={"type": "linear", "factor": 4.0}))

    # Texts have up to 32 tokens: original contexts of 16 are exceeded, those of 48 are not.
    def scaled(rope, **changes):
        small = dict(hidden_size=32, num_attention_heads=2, num_key_value_heads=1, intermediate_size=64, vocab_size=64)
        return dict(config=llama(BITLINEAR, **small, rope_theta=None, rope_parameters=rope, **changes))

    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
    yield "llama-rope-yarn", scaled(yarn)
    scales = {"mscale": 2.0, "mscale_all_dim": 0.5, "truncate": False, "beta_fast": 8.0, "beta_slow": 0.5}
    yield "llama-rope-yarn-scales", scaled({**yarn, **scales})
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    yield "llama-rope-dynamic", scaled(dynamic, max_position_embeddings=16)
    yield "llama-rope-dynamic-within", scaled(dynamic, max_position_embeddings=48)
    lists = {"short_factor": [1 + 0.1 * i for i in range(8)], "long_factor": [1 + 0.7 * i for i in range(8)]}
    longrope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 16, **lists}
    yield "llama-rope-longrope", scaled(longrope)
    # The original context at the top level wins.
    yield "llama-rope-longrope-within", scaled({**longrope, "attention_factor": 1.3}, original_max_position_embeddings=48)

    # transformers has no class for the 1bitLLM form; its arithmetic is that of BitNet with SiLU, online.
    loaded = bitnet(ONLINE, hidden_act="silu", rope_theta=10000.0)
    stored = {k: v for k, v in loaded.items() if k != "quantization_config"} | {
        "architectures": ["BitnetForCausalLM"], "model_type": "llama", "input_bits": 8, "weight_bits": 1,
        "rope_scaling": None, "attention_bias": False}
    yield "1bitllm-f16", dict(config=loaded, dtype=F16, written=(stored | {"torch_dtype": "float16"}, RENAME_1BITLLM))
    small = {"hidden_size": 40, "intermediate_size": 100, "num_key_value_heads": 4}
    yield "1bitllm-f32", dict(config=loaded | small, dtype=F32, written=(stored | small | {"torch_dtype": "float32"}, RENAME_1BITLLM))

    # The families that are descriptions of a block: what each has that no other has.
    yield "qwen2", dense("qwen2", "Qwen2ForCausalLM")
    window = dict(use_sliding_window=True, sliding_window=6, num_hidden_layers=3, hidden_size=48)
    yield "qwen2-window", dense("qwen2", "Qwen2ForCausalLM", max_window_layers=1, **window)
    yield "qwen3", dense("qwen3", "Qwen3ForCausalLM", head_dim=24)
    layers = dict(layer_types=["sliding_attention", "full_attention"], use_sliding_window=True, sliding_window=5)
    yield "qwen3-window-online", dict(config=llama(
        ONLINE, architectures=["Qwen3ForCausalLM"], model_type="qwen3", head_dim=24, num_key_value_heads=1, **layers))
    yield "mistral", dense("mistral", "MistralForCausalLM", sliding_window=7)
    scales = dict(embedding_multiplier=12.0, residual_multiplier=0.22, attention_multiplier=0.09, logits_scaling=6.0)
    yield "granite", dense("granite", "GraniteForCausalLM", **scales)
    yield "olmo2", dense("olmo2", "Olmo2ForCausalLM", num_key_value_heads=4)
    alpha = dict(rope_scaling={"type": "dynamic", "alpha": 50.0, "factor": 1.0}, head_dim=24)
    yield "hunyuan", dense("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM", **alpha)
    hunyuan = {"architectures": ["HunYuanDenseV1ForCausalLM"], "model_type": "hunyuan_v1_dense"}
    yield "hunyuan-offline", dict(config=llama(OFFLINE, **hunyuan, **alpha))
    # transformers has no class for MiniCPM; Granite computes the same from multipliers, which follow from MiniCPM's keys.
    for form, quant in {"minicpm": None, "minicpm-online": {"quant_method": "bitnet", **ONLINE}}.items():
        rope = longrope if quant is None else {"rope_type": "default"}
        both = dict(quantization_config=quant, num_key_value_heads=2, rope_scaling=rope)
        own = dict(scale_emb=12.0, scale_depth=1.4, dim_model_base=16)
        scales = dict(embedding_multiplier=12.0, residual_multiplier=1.4 / 2 ** 0.5, attention_multiplier=0.25,
                      logits_scaling=4.0)
        stored = llama({}, architectures=["MiniCPMForCausalLM"], model_type="minicpm", **both, **own)
        loaded = llama({}, architectures=["GraniteForCausalLM"], model_type="granite", **both, **scales)
        yield form, dict(config=loaded, dense=(lambda _: True) if quant is None else is_head, written=(stored, {}))
    # Norms are stored without the 1; a smaller embedding, so that the scale does not make each token answer with itself.
    gemma = dict(hidden_act=None, hidden_activation="gelu_pytorch_tanh", hidden_size=40, head_dim=20, num_hidden_layers=3,
                 query_pre_attn_scalar=18, pad_token_id=0, rope_theta=None)
    more = dict(rope_theta=500000.0, rope_local_base_freq=5000.0, rope_scaling={"rope_type": "linear", "factor": 4.0},
                layer_types=["sliding_attention", "full_attention", "sliding_attention"], sliding_window=5)
    yield "gemma3", dict(**dense("gemma3_text", "Gemma3ForCausalLM", **gemma | more, final_logit_softcapping=3.0), edit=gemma_weights)
    ropes = {"full_attention": {"rope_type": "default", "rope_theta": 500000.0},
             "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}}
    more = dict(rope_parameters=ropes, sliding_window_pattern=3, sliding_window=6, tie_word_embeddings=True)
    yield "gemma3-online", dict(config=llama(ONLINE, **{"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
                                             | gemma | more), edit=gemma_weights)
    # BitNet-embedding: transformers' norms in linear layers under other names, without prefix, head and quantization_config.
    own = {**ONLINE, "use_rms_norm": True, "rms_norm_eps": 1e-6}
    qwen3 = dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3", head_dim=24, tie_word_embeddings=True)
    gemma3 = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"} | gemma | more
    for form, changes, edit in (("qwen3-embedding", qwen3, dict), ("gemma3-embedding", gemma3, gemma_weights)):
        loaded = llama(own, **changes)
        stored = {key: v for key, v in loaded.items() if key != "quantization_config"}
        yield form, dict(config=loaded, edit=edit, written=(stored, {"model.": "", ".rms_norm.": ".norm."}))
    # Experts and their router are no linear modules, so they are not quantized.
    experts = dict(head_dim=24, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True)
    yield "qwen3-moe", dense("qwen3_moe", "Qwen3MoeForCausalLM", **experts)
    moe = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", **experts}
    more = dict(norm_topk_prob=False, num_experts_per_tok=3, use_sliding_window=True, sliding_window=7)
    yield "qwen3-moe-online", dict(config=llama(ONLINE, **moe | more), dense=lambda name: is_head(name) or ".mlp." in name)
    # transformers has no class for Maple: Qwen3 with experts, changed.
    sizes = dict(num_key_value_heads=2, quantization_config=None, num_hidden_layers=3, **experts)
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    stored = llama({}, architectures=["MapleForCausalLM"], model_type="maple", layer_types=kinds, sliding_window=6,
                   partial_rotary_factor=0.5, swiglu_limit=0.75, **sizes)
    yield "maple", dict(config=llama({}, **moe | sizes), dense=lambda name: True, written=(stored, {}),
                        patch=lambda model: reference.make_maple(model, [6, None, 6], 12, 0.75))
    # Value heads are three for each key head; a quarter of a head is rotated.
    delta = dict(head_dim=24, num_hidden_layers=4, full_attention_interval=2, linear_num_key_heads=2, linear_num_value_heads=6,
                 linear_key_head_dim=8, linear_value_head_dim=12, pad_token_id=0)
    qwen35 = {"architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text"} | delta
    yield "qwen35", dict(**dense("qwen3_5_text", "Qwen3_5ForCausalLM", **delta), edit=qwen35_weights)
    # As the text part of a model that also sees.
    loaded = llama(ONLINE, **qwen35)
    stored = {"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "text_config": loaded}
    yield "qwen35-online", dict(config=loaded, edit=qwen35_weights, written=(stored, {"model.": "model.language_model."}))
    yield "glm4", dense("glm4", "Glm4ForCausalLM", head_dim=20, attention_bias=True, pad_token_id=0)


def gemma_weights(weights):
    change = {"rms_norm": lambda w: w, "norm": lambda w: (w.float() - 1).to(w.dtype), "embed_tokens": lambda w: w / 4}
    return {name: next((f(w) for part, f in change.items() if part in name), w) for name, w in weights.items()}


def qwen35_weights(weights):
    def one(name, w):
        less = "norm" in name and "linear_attn" not in name and "rms_norm" not in name
        return (w.float() - 1).to(w.dtype) if less else w

    return {name: one(name, w) for name, w in weights.items()}


def add_head(weights):
    embedding = weights["model.embed_tokens.weight"]
    return weights | {"lm_head.weight": embedding.flip(0).contiguous()}


if __name__ == "__main__":
    for form, arguments in forms():
        if len(sys.argv) == 1 or form in sys.argv[1:]:
            make(form, **arguments)
