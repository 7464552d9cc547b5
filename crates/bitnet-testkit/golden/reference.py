"""Runs transformers on a checkpoint and chooses the tokens on which it is asked.

Activations are rounded to int8, so a difference of one unit in the last place of a float can flip a
rounding and move a logit by a percent. Golden tokens are therefore chosen, not drawn: each next token is
the one whose activations (in every quantized linear layer) stay farthest from a rounding boundary, and
the last one is chosen so that eight greedy steps have a clear winner. What is left measures an
implementation, not its luck.
"""

import json
import os
from unittest import mock

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # torch.compile would reorder the reference's arithmetic
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.bitnet import AutoBitLinear, BitLinear
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
torch.set_grad_enabled(False)

TOKENS = 24  # length of input_ids
GREEDY = 8  # tokens generated after them
MIN_MARGIN = 5e-4  # distance from a rounding boundary, in units of an int8 step; float32 noise is 1e-5
MIN_GAP = 0.02  # between the two best logits of a greedy step, relative to the largest logit


class Unstable(Exception):
    """These weights give no golden that is safe from rounding; take another seed."""


def load(directory):
    """The model as from_pretrained makes it, with nothing missing, left over or of another shape."""
    model, info = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    for kind, names in info.items():
        if names:
            raise SystemExit(f"{directory}: {kind}: {names}")
    model = torch.nn.Module.float(model)  # the loader leaves unquantized tensors of a quantized model in their stored type
    assert all(module.dtype == torch.float32 for module in model.modules() if isinstance(module, BitLinear))
    round_embedding_scale(model, directory)
    fix_length(model)
    return in_double(model.eval()) if model.config.model_type == "qwen3_5_text" else model.eval()


def in_double(model):
    """In float64: in float32 two paths of transformers' own gated delta rule differ by 1e-4."""
    forward = model.double().forward

    def run(*args, **kwargs):
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double), mock.patch.multiple(
            torch, float32=torch.float64, float=torch.float64
        ):
            return forward(*args, **kwargs)

    model.forward = run
    return model


def round_embedding_scale(model, directory):
    """Gemma rounds the factor of its embedding to the dtype of the weights, which is not the one that they are loaded in."""
    scale = getattr(model.get_input_embeddings(), "embed_scale", None)
    with open(os.path.join(directory, "config.json")) as file:
        stored = json.load(file).get("torch_dtype", "float32")
    if isinstance(scale, torch.Tensor):
        scale.copy_(scale.to(getattr(torch, stored)))


def fix_length(model):
    """Where angles depend on the length of a text: those of one pass over the longest text here, at every length."""
    rotary = model.model.rotary_emb
    if rotary.rope_type in ("dynamic", "longrope"):
        frequencies, _ = ROPE_INIT_FUNCTIONS[rotary.rope_type](model.config, seq_len=TOKENS + GREEDY)
        rotary.inv_freq.copy_(frequencies)
        rotary.rope_type = "default"


def check_length(model, ids):
    """That transformers, left alone, gives the same for this text of the longest length."""
    rotary, kind = model.model.rotary_emb, model.config.rope_parameters.get("rope_type")
    if rotary.rope_type == "default" != kind:
        fixed = model(input_ids=ids[None], use_cache=False).logits
        rotary.rope_type = kind
        alone = model(input_ids=ids[None], use_cache=False).logits
        assert torch.equal(fixed, alone), "angles of another length"


def make_maple(model, windows, rotary, limit):
    """Makes Maple of a Qwen3 with experts: layers without a window (None) have no positions, others rotate the first `rotary`
    elements of a head; gates of experts are at most `limit` before SiLU, what they multiply is clamped to it on both sides."""
    theta = model.config.rope_parameters["rope_theta"]
    for layer, window in zip(model.model.layers, windows):
        layer.self_attn.forward = maple_attention(layer.self_attn, window, rotary, theta)
        layer.mlp.experts.forward = maple_experts(layer.mlp.experts, limit)


def maple_attention(attention, window, rotary, theta):
    def forward(hidden_states, **_):
        batch, tokens, _ = hidden_states.shape
        heads = lambda x: x.view(batch, tokens, -1, attention.head_dim)
        query = attention.q_norm(heads(attention.q_proj(hidden_states))).transpose(1, 2)
        key = attention.k_norm(heads(attention.k_proj(hidden_states))).transpose(1, 2)
        value = heads(attention.v_proj(hidden_states)).transpose(1, 2)
        at = torch.arange(tokens)
        seen = at[:, None] >= at
        if window is not None:
            seen &= at[:, None] - at < window
            angles = at[:, None] * theta ** (-torch.arange(0, rotary, 2) / rotary)
            cos, sin, half = angles.cos(), angles.sin(), rotary // 2

            def turn(x):
                low, high = x[..., :half], x[..., half:rotary]
                return torch.cat([low * cos - high * sin, high * cos + low * sin, x[..., rotary:]], -1)

            query, key = turn(query), turn(key)
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
        scores = query @ key.transpose(2, 3) * attention.head_dim ** -0.5
        mixed = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value
        return attention.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1)), None

    return forward


def maple_experts(experts, limit):
    def forward(hidden_states, chosen, factors):
        out = torch.zeros_like(hidden_states)
        for expert in range(len(experts.gate_up_proj)):
            rows, slots = (chosen == expert).nonzero(as_tuple=True)
            gate, up = (hidden_states[rows] @ experts.gate_up_proj[expert].T).chunk(2, -1)
            inner = torch.nn.functional.silu(gate.clamp(max=limit)) * up.clamp(-limit, limit)
            out.index_add_(0, rows, inner @ experts.down_proj[expert].T * factors[rows, slots, None])
        return out

    return forward


class Margins:
    """Records, for every token, how near its activations come to a rounding boundary."""

    def __init__(self, model):
        self.least, self.recording = None, False
        for module in model.modules():
            if isinstance(module, (AutoBitLinear, BitLinear)):
                module.register_forward_pre_hook(self.record)

    def record(self, module, inputs):
        if not self.recording:
            return
        x = inputs[0] if module.rms_norm is None else module.rms_norm(inputs[0])
        steps = x * (127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5))
        margin = ((steps - steps.floor()) - 0.5).abs().amin(-1)
        self.least = margin if self.least is None else torch.minimum(self.least, margin)

    def run(self, model, ids):
        """ids [batch, tokens] -> (logits [batch, tokens, vocab], margins [batch, tokens])"""
        self.least, self.recording = None, True
        logits = model(input_ids=ids, use_cache=False).logits
        self.recording = False
        if self.least is None:  # a model without a quantized layer has nothing to round
            self.least = torch.full(ids.shape, 0.5)
        return logits, self.least


def greedy(model, margins, ids):
    """Eight greedy tokens after each row of ids, with the least gap and the least margin met on the way."""
    gap = margin = torch.ones(len(ids))
    for _ in range(GREEDY):
        logits, least = margins.run(model, ids)
        best = logits[:, -1].topk(2)
        gap = gap.minimum((best.values[:, 0] - best.values[:, 1]) / logits[:, -1].abs().amax(-1))
        margin = margin.minimum(least[:, -1])
        ids = torch.cat([ids, best.indices[:, :1]], dim=1)
    return ids, gap, margin


def choose_tokens(model, margins, generator):
    """input_ids, and the same followed by the greedy tokens, with the least gap of these."""
    vocab = model.config.vocab_size
    ids = torch.randint(vocab, (1,), generator=generator)
    candidates = torch.arange(vocab)[-128:]
    while True:
        batch = torch.cat([ids.expand(len(candidates), -1), candidates[:, None]], dim=1)
        least = margins.run(model, batch)[1][:, -1]
        least[torch.isin(candidates, ids)] = 0  # no token twice
        if len(ids) == TOKENS - 1:
            break
        ids = torch.cat([ids, candidates[least.argmax()][None]])
    batch = batch[least > MIN_MARGIN]
    if len(batch) == 0:
        raise Unstable("every last token comes too near to a rounding boundary")
    continued, gap, margin = greedy(model, margins, batch)
    distinct = torch.tensor([len(set(row)) for row in continued[:, TOKENS:].tolist()])
    distinct[(gap < MIN_GAP) | (margin < MIN_MARGIN / 5)] = 0
    best = distinct.argmax()
    if distinct[best] < 2:
        raise Unstable("no last token has a stable greedy continuation")
    return batch[best], continued[best], gap[best].item()


def write_golden(directory, model, generator):
    """Chooses tokens, runs the model on them and writes golden.safetensors. Returns a line for the log."""
    margins = Margins(model)
    ids, continued, gap = choose_tokens(model, margins, generator)
    out = model(input_ids=ids[None], use_cache=False, output_hidden_states=True)
    least = margins.run(model, ids[None])[1].min().item()
    if least < MIN_MARGIN:
        raise Unstable(f"an activation lies {least:.1e} from a rounding boundary")

    embedded = out.hidden_states[0]
    embedded = embedded / getattr(model.config, "embedding_multiplier", 1.0)  # the model multiplies what it is given
    noise = torch.randn(embedded.shape, generator=generator) * 1e-6 * embedded.abs().max()
    moved = (model(inputs_embeds=embedded + noise, use_cache=False).logits - out.logits).abs().max()
    moved = (moved / out.logits.abs().max()).item()
    if moved > 1e-4:
        raise Unstable(f"a change of 1e-6 in the input moves the logits by {moved:.1e}")

    normed = model.get_output_embeddings()(out.hidden_states[-1]) / getattr(model.config, "logits_scaling", 1.0)
    cap = getattr(model.config, "final_logit_softcapping", None)
    normed = torch.tanh(normed / cap) * cap if cap else normed
    assert torch.allclose(normed, out.logits), "the last hidden state must be the one after the final norm"
    check_length(model, continued)
    golden = {"input_ids": ids.int(), "greedy_ids": continued.int(), "logits": out.logits[0]}
    for i, hidden in enumerate(out.hidden_states):
        golden[f"hidden_states.{i}"] = hidden[0]
    golden = {name: (t.float() if t.is_floating_point() else t).contiguous().clone() for name, t in golden.items()}
    save_file(golden, os.path.join(directory, "golden.safetensors"))
    return f"margin {least:.1e}, gap {gap:.2f}, moved {moved:.0e}, greedy {continued[TOKENS:].tolist()}"
