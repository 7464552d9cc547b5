"""Tokenizer goldens: tiny vocabularies trained here, and what the reference implementations do with them.

Writes beside itself, for each pre-tokenizer KIND of byte-level BPE and for SentencePiece BPE:
  KIND.tokenizer.json   a Hugging Face tokenizer
  KIND.golden.json      the same vocabulary as GGUF metadata; ids from Hugging Face tokenizers, from
                        llama.cpp (vocabulary-only GGUF) and from sentencepiece; decoded texts

Made with tokenizers 0.23.3, transformers 5.23.0, sentencepiece 0.2.3, gguf 0.19.0, llama-cpp-python 0.3.36:
  python make_goldens.py
"""

import ctypes
import io
import json
import random
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def corpus(seed, lines=3000):
    """Word salad with the shapes of real text: names, numbers, contractions, code, other scripts."""
    rng = random.Random(seed)
    onset, vowel, coda = "b c d f g h l m n p r s t th sh st w".split(), "a e i o u ea ou".split(), ["", "n", "r", "s", "t", "nd", "ll"]
    words = ["".join(rng.choice(onset) + rng.choice(vowel) + rng.choice(coda) for _ in range(rng.randint(1, 3))) for _ in range(300)]
    other = "größe naïve façade привет мир код 你好 世界 東京 カナ 한국 नमस्ते שלום مرحبا Ωμέγα 🙂 🚀 👍🏽 é e\u0301 ½ ²".split()
    tails = ["'s", "'t", "'re", "'ll", "n't", "'VE", ",", ".", "!", "?", ";", ":", " -", "...", "\n", "\n\n", "  ", "   ", "\t", " (", ")", "/", "_", " = ", " + 1", "()"]
    out = []
    for _ in range(lines):
        line = []
        for _ in range(rng.randint(3, 12)):
            word = rng.choice(words)
            kind = rng.random()
            if kind < 0.12:
                word = word.capitalize()
            elif kind < 0.16:
                word = word.upper()
            elif kind < 0.24:
                word = str(rng.randint(0, 10 ** rng.randint(1, 6)))
            elif kind < 0.32:
                word = rng.choice(other)
            line.append(word + (rng.choice(tails) if rng.random() < 0.25 else ""))
        out.append(" ".join(line))
    return out


TEXTS = [
    "", " ", "  ", "          ", "\n", "\n\n\n", " \n \n", "\t\tx", "a", "Hello world", " Hello  world   !", "Hello\nworld\r\nagain\r\n\r\n",
    "1 12 123 1234 12345 123456 1234567 3.14 -7 1,000,000 a1b22c333", "I'm we'll they've it's don't HE'S WE'RE 'tis o'clock l'été '",
    "naïve façade größe ÀÉÎ", "cafe\u0301 e\u0301\u0323 a\u0308o\u0308", "你好，世界！東京タワー 한국어 カタカナ", "Привет, мир! Ωμέγα नमस्ते שלום مرحبا",
    "🙂🚀👍🏽👩‍👩‍👧‍👦🇩🇪 ✅", "½ ² Ⅻ ١٢٣", "a\u00a0b\u3000c\u2003d\u200be\ufeff", "fn main() { println!(\"{x_y:?}\"); } // ok\n    return a+b;",
    "<|begin_of_text|>hi<|eot_id|>", "x<|eot_id|> y <|eot_id|>", "<|eot_id", "<s>hi</s>", " <tool> call </tool>", "a<tool>b", "[INST] x [/INST]",
    "aaaaaaaaaaaaaaaaaaaaaaa", "ababababab", "thethethethe the the", "....!!!???---===", "x\u0000y\u001f\u007f", "\U0010ffff\ue000", "ſ 'ſt K",
    "▁ a▁b ▁▁c", "<0x41><0x0A>", "ending with spaces    ", "    four\n\tleading", "CamelCaseWordsHTTPServer", "https://example.org/a?b=c&d=%20#e",
]


def texts(seed):
    rng = random.Random(seed)
    alphabet = list("abcdefghilmnoprstu     \n\n'.,12345é你 ▁🙂") + ["the", "  ", "'s", "<|eot_id|>", "<tool>"]
    noise = ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 40))) for _ in range(40)]
    return TEXTS + noise + corpus(seed, 6)


class LlamaCpp:
    """llama.cpp's tokenizer of a vocabulary that is written as a GGUF file without tensors."""

    def __init__(self, vocab):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vocab.gguf"
            w = gguf.GGUFWriter(path, "llama")
            w.add_context_length(128), w.add_embedding_length(32), w.add_block_count(1), w.add_feed_forward_length(32)
            w.add_head_count(1), w.add_layer_norm_rms_eps(1e-5), w.add_vocab_size(len(vocab["tokens"]))
            w.add_tokenizer_model(vocab["model"])
            if vocab["pre"]:
                w.add_tokenizer_pre(vocab["pre"])
            w.add_token_list(vocab["tokens"]), w.add_token_types(vocab["token_types"])
            if vocab["scores"]:
                w.add_token_scores(vocab["scores"])
            if vocab["merges"]:
                w.add_token_merges(vocab["merges"])
            for key, add in [("bos", w.add_bos_token_id), ("eos", w.add_eos_token_id), ("unk", w.add_unk_token_id), ("eot", w.add_eot_token_id)]:
                if vocab[key] is not None:
                    add(vocab[key])
            w.add_add_bos_token(vocab["add_bos"]), w.add_add_eos_token(vocab["add_eos"])
            if vocab["add_space_prefix"] is not None:
                w.add_add_space_prefix(vocab["add_space_prefix"])
            if vocab.get("remove_extra_whitespaces"):
                w.add_remove_extra_whitespaces(True)
            w.write_header_to_file(), w.write_kv_data_to_file(), w.close()
            params = llama_cpp.llama_model_default_params()
            params.vocab_only = True
            self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
            assert self.model, "llama.cpp does not read the vocabulary"
            self.vocab = llama_cpp.llama_model_get_vocab(self.model)

    def encode(self, text, add_special, parse):
        data = text.encode()
        out = (llama_cpp.llama_token * (len(data) + 8))()
        n = llama_cpp.llama_tokenize(self.vocab, data, len(data), out, len(out), add_special, parse)
        assert n >= 0
        return list(out[:n])


def write(name, tokenizer, vocab, seed, extra=lambda text: {}):
    path = HERE / f"{name}.tokenizer.json"
    definition = json.loads(tokenizer.to_str())
    path.write_text(json.dumps(definition, ensure_ascii=False, separators=(",", ":")), encoding="utf8")
    llama = LlamaCpp(vocab)
    cases, same = [], 0
    for text in texts(seed):
        case = {"text": text}
        tokenizer.encode_special_tokens = False
        case["hf"] = tokenizer.encode(text, add_special_tokens=True).ids
        tokenizer.encode_special_tokens = True
        case["hf_plain"] = tokenizer.encode(text, add_special_tokens=False).ids
        case["llama_cpp"] = llama.encode(text, True, True)
        case["llama_cpp_plain"] = llama.encode(text, False, False)
        same += case["hf"] == case["llama_cpp"]
        cases.append(case | extra(text))
    rng = random.Random(seed)
    decoded = []
    for _ in range(30):  # ids at random: characters torn apart, special tokens, unfinished ends
        ids = [rng.randrange(tokenizer.get_vocab_size()) for _ in range(rng.randint(1, 12))]
        decoded.append({"ids": ids, "text": tokenizer.decode(ids), "text_special": tokenizer.decode(ids, skip_special_tokens=False)})
    golden = {"vocab": vocab, "cases": cases, "decoded": decoded}
    (HERE / f"{name}.golden.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")), encoding="utf8")
    print(f"{name}: {len(vocab['tokens'])} tokens, Hugging Face and llama.cpp agree on {same} of {len(cases)} texts")


def byte_level(name, pre, cut, ignore_merges, bos, seed):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if cut is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
                                                          if not isinstance(cut[-1], pre_tokenizers.ByteLevel) else cut)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(corpus(seed), trainer)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    if bos:
        i = tokenizer.token_to_id("<|begin_of_text|>")
        tokenizer.post_processor = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", i)])
    definition = json.loads(tokenizer.to_str())
    size = tokenizer.get_vocab_size()
    added = {t["id"]: t["special"] for t in definition["added_tokens"]}
    vocab = {
        "model": "gpt2", "pre": pre, "tokens": [tokenizer.id_to_token(i) for i in range(size)], "scores": [],
        "token_types": [NORMAL if i not in added else CONTROL if added[i] else USER_DEFINED for i in range(size)],
        "merges": [" ".join(m) for m in definition["model"]["merges"]],
        "bos": tokenizer.token_to_id("<|begin_of_text|>"), "eos": tokenizer.token_to_id("<|end_of_text|>"),
        "eot": tokenizer.token_to_id("<|eot_id|>"), "unk": None, "pad": None,
        "add_bos": bos, "add_eos": False, "add_space_prefix": None,
    }
    write(name, tokenizer, vocab, seed)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def sentence_piece(seed):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(seed)), model_writer=model, model_type="bpe", vocab_size=900, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True, character_coverage=0.999,
        split_digits=True, allow_whitespace_only_pieces=True, user_defined_symbols=["<tool>"], minloglevel=2)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    size = sp.get_piece_size()

    def kind(i):
        return (UNKNOWN if sp.is_unknown(i) else CONTROL if sp.is_control(i) else BYTE if sp.is_byte(i)
                else USER_DEFINED if sp.id_to_piece(i) == "<tool>" else NORMAL)

    pieces = [sp.id_to_piece(i) for i in range(size)]
    kinds = [kind(i) for i in range(size)]
    scores = [sp.get_score(i) for i in range(size)]
    ids = {p: i for i, p in enumerate(pieces)}
    normal = {p for p, k in zip(pieces, kinds) if k == NORMAL}
    # As transformers converts a SentencePiece model: every pair that makes a piece is a merge, better scores first.
    merges = [(scores[i], ids[p[:at]], ids[p[at:]], (p[:at], p[at:])) for i, p in enumerate(pieces) if p in normal
              for at in range(1, len(p)) if p[:at] in normal and p[at:] in normal]
    merges.sort(key=lambda m: (-m[0], m[1], m[2]))
    tokenizer = Tokenizer(models.BPE(ids, [m[3] for m in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ["<unk>", "<s>", "</s>"]])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False, special=False)])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    vocab = {
        "model": "llama", "pre": None, "tokens": pieces, "scores": scores, "token_types": kinds, "merges": [],
        "bos": 1, "eos": 2, "eot": None, "unk": 0, "pad": None, "add_bos": True, "add_eos": False, "add_space_prefix": True,
    }
    write("sentencepiece", tokenizer, vocab, seed, lambda text: {"sentencepiece": sp.encode(text)})


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
          r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

if __name__ == "__main__":
    @ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    def quiet(level, text, _):
        pass
    llama_cpp.llama_log_set(quiet, None)
    byte_level("gpt2", "gpt-2", None, False, False, 1)
    byte_level("llama3", "llama-bpe", [split(LLAMA3)], True, True, 2)
    byte_level("qwen2", "qwen2", [split(QWEN2)], False, False, 3)
    byte_level("smollm", "smollm", [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)], False, False, 4)
    byte_level("tekken", "tekken", [split(TEKKEN)], True, True, 5)
    byte_level("deepseek", "deepseek-v3", [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK)], False, True, 6)
    sentence_piece(7)
