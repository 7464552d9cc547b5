"""Goldens of every pre-tokenizer that GGUF names: one text, one vocabulary, ids by Hugging Face tokenizers.

The expressions are those of the models' tokenizer.json files, as llama.cpp's source quotes them (llama-vocab.cpp, November 2026); the
merges are learned from the uncut text, so that they cross every boundary and each kind gives ids of its own. Writes
pre.golden.json beside itself. Made with tokenizers 0.23.3:
  python make_pre_goldens.py
Where llama-cpp-python is installed (with what make_goldens.py needs) it also prints the kinds for which llama.cpp has other ids on this
text, because it rewrote their expressions for its own engine. With 0.3.36: tekken, gpt-4o, llama4, kanana2, talkie, minimax-m2 (marks after
letters), tiny_aya, cohere2moe, youtu, kimi-k2 (capitals are not told from small letters; digits are joined to what is before them), afmoe (the
same digits), superbpe (ASCII digits only), gemma4 and granite-embed-multi-311m (a zero byte ends a token). All others are equal.
"""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

HERE = Path(__file__).parent
TEXT = """The quick brown Fox can't jump, won't; I'LL we'VE THEY'RE it'S don'T o'clock 'round ''s'' l'homme c'est aujourd'hui IT'S HTTPServer camelCase XMLHttpRequest2
1 12 123 1234 12345 123456 1234567 12345678 3.14 1,234,567 a1b22c333d4444 x²³ ½ Ⅻ ١٢٣٤٥٦ 10km  42   777    9876 2026-11-28 0x1F
 a  b   c    d\ta\t\tb \t c\u00a0d\u3000e  \u2003 end   \n\n\n  x \r\n\r\ny\r\n \n  z\u2028k\u0085l\u000bm\f\n
(a) [b] {c} <d> a+b=c; x->y, a.b... ..., !!\n?!/\n//// #include <stdio.h>\n// x_y __init__ $5 ^~|` "q" -- --- ======= «»“”‘’…—：；，、！？。 <sentinel:12> IMGIMGABCZ
Größe naïve ÀÉÎõü Straße ΑΒΓαβγ Ωμέγα Привет МИР Дружба հայ ქართული ǅ ʰ नमस्ते हिन्दी বাংলা தமிழ் ไทยแลนด์ ລາວ ខ្មែរ မြန်မာ
你好，世界。天地玄黄 宇宙洪荒 東京タワー こんにちは カタカナ ｶﾀｶﾅ 한국어 대한민국 ㄱㄴㄷ ㄅㄆㄇ 㐀㐁 𠀀𠀁 עברית שָׁלוֹם العربية مَرْحَبًا
e\u0301a\u0308\u0323 \u0301x \u0300\u0301 👍🏽 👩‍👩‍👧‍👦🇩🇪 ✅✅ a\u200bb\ufeffc ſ 'ſ K İi ß\u0000\u0001\u001b\u007f\u0080\u009f\ufffd\ue000\U0010ffff ▁▁a
return x**2 if (n%3==0) else [i for i in range(10)]  # TODO: fix\n\tdef f(self):\n\t\tpass\n        "str\\n"    end."""

C = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
UP, LOW, LEAD = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[^\r\n\p{L}\p{N}]?"
TEKKEN = rf"{LEAD}{UP}*{LOW}+|{LEAD}{UP}+{LOW}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*" + TAIL
GPT4O = rf"{LEAD}{UP}*{LOW}+{C}?|{LEAD}{UP}+{LOW}*{C}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*" + TAIL
KIMI_UP, KIMI_LOW = UP[:-1] + r"&&[^\p{Han}]]", LOW[:-1] + r"&&[^\p{Han}]]"
ASCII = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
DEEPSEEK = ASCII + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*" + TAIL
CJK = "[一-龥぀-ゟ゠-ヿ]+"
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
LATIN = open(HERE / "../../src/tokenizer/pretokenizer.rs", encoding="utf8").read().split('DEEPSEEK_LETTERS: &str =')[1].split('r"')[1].split('"')[0]

KINDS = {
    "gpt-2 phi-2 mpt olmo jais trillion exaone4 gigachat a.x-4.0 mellum modern-bert granite-docling jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe": [GPT2],
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano smaug-bpe dbrx chatglm-bpe glm4 glm5": [LLAMA3],
    "jais-2": [C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"],
    "minicpm5": [r"\p{N}{1,3}", LLAMA3.replace("{1,3}", "+")],
    "qwen2 stablelm2 deepseek-r1-qwen hunyuan megrez solar-open grok-2 kormo f2llmv2": [QWEN2],
    "qwen35": [C + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + TAIL],
    "ufakzeka": [r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL],
    "laguna": [r"[^\n]+|[\n]+", QWEN2],
    "seed-coder": [C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + TAIL],
    "bailingmoe bailingmoe2 llada-moe": [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"],
    "exaone-moe": [C + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"],
    "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": [r"\p{N}", GPT2],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    "tekken": [TEKKEN],
    "gpt-4o llama4 kanana2 talkie minimax-m2 granite-embed-multi-97m": [GPT4O],
    "tiny_aya cohere2moe": [r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O],
    "youtu": ["[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+", GPT4O.replace(r"\p{N}{1,3}", r"\p{N}")],
    "kimi-k2": [rf"[\p{{Han}}]+|{LEAD}{KIMI_UP}*{KIMI_LOW}+{C}?|{LEAD}{KIMI_UP}+{KIMI_LOW}*{C}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*" + TAIL],
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": [r"\p{N}{1,3}", CJK, DEEPSEEK],
    "spark2_5": [r"\p{N}{1,3}", CJK, ASCII + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"],
    # llama.cpp has code for the digits: groups of three, the rest first.
    "afmoe": [r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+", DEEPSEEK],
    "deepseek-llm": [r"[\r\n]", LATIN, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", "[一-龥ࠀ-一가-퟿]+", r"\p{N}+"],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
    "bloom poro-chat gpt3-finnish": [BLOOM],
    "viking": [BLOOM, r"\p{N}"],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
    "chameleon": ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]", GPT2],
    "gemma4 granite-embed-multi-311m sarvam-moe": [r"[^\n]+|[\n]+"],
    "whitespace": [r"\S+"],
}
RAW = ("gemma4", "whitespace")


def cutter(expressions, raw):
    steps = [pre_tokenizers.Split(Regex(e), behavior="isolated") for e in expressions]
    return pre_tokenizers.Sequence(steps + ([] if raw else [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))


def learn(raw, size):
    """Merges of the whole text and of parts of it, across all boundaries."""
    tokenizer = Tokenizer(models.BPE())
    alphabet = [] if raw else sorted(pre_tokenizers.ByteLevel.alphabet())
    if not raw:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False, min_frequency=2)
    text = TEXT.replace(" ", "▁") if raw else TEXT
    parts = [text[i:i + n] for n in (7, 16, 40) for i in range(0, len(text) - n, n // 2)]
    tokenizer.train_from_iterator([part.replace("\n", "") if raw else part for part in parts], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    if raw:  # the rare characters are bytes
        tokens = [f"<0x{b:02X}>" for b in range(256)] + tokens + ["\n", "\n\n", "\n\n\n"]
    return tokens, [list(m) for m in model["merges"]]


def main():
    vocabularies = {"byte_level": learn(False, 700), "raw": learn(True, 450)}
    golden = {"text": TEXT, "kinds": []}
    for name, (tokens, merges) in vocabularies.items():
        golden[name] = {"tokens": tokens, "merges": [" ".join(m) for m in merges]}
    for names, expressions in KINDS.items():
        raw = names.split()[0] in RAW
        tokens, merges = vocabularies["raw" if raw else "byte_level"]
        model = models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m) for m in merges], byte_fallback=raw)
        tokenizer = Tokenizer(model)
        if names.startswith("gemma4"):
            tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = cutter(expressions, raw)
        ids = []
        newlines = {n * "\n": i for i, n in ((tokens.index(n * "\n"), n) for n in (1, 2, 3))} if raw else {}
        if names.startswith("gemma4"):  # llama.cpp takes a run of newlines that is a token whole
            for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(TEXT.replace(" ", "▁")):
                whole = piece in newlines
                ids += [newlines[piece]] if whole else tokenizer.encode(piece, add_special_tokens=False).ids
        else:
            ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
        golden["kinds"].append({"names": names.split(), "vocabulary": "raw" if raw else "byte_level", "ids": ids})
    (HERE / "pre.golden.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")), encoding="utf8")
    different = {tuple(k["ids"]) for k in golden["kinds"]}
    print(f"{len(golden['kinds'])} kinds, {sum(len(k['names']) for k in golden['kinds'])} names, {len(different)} different lists of ids")
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        return
    from make_goldens import LlamaCpp

    for kind in golden["kinds"]:
        vocab = golden[kind["vocabulary"]]
        types = [6 if t.startswith("<0x") else 1 for t in vocab["tokens"]]
        for name in kind["names"]:
            if name == "whitespace":  # llama.cpp aborts at merges of spaces
                continue
            metadata = {"model": "gemma4" if name == "gemma4" else "gpt2", "pre": name, "tokens": vocab["tokens"], "token_types": types,
                        "scores": [], "merges": vocab["merges"], "bos": 0, "eos": 0, "unk": None, "eot": None, "add_bos": False,
                        "add_eos": False, "add_space_prefix": None}
            ids = LlamaCpp(metadata).encode(TEXT, False, False)
            if ids != kind["ids"]:
                at = next(i for i, (a, b) in enumerate(zip(ids, kind["ids"])) if a != b)
                tokens = [[vocab["tokens"][i] for i in ids[at:at + 4]] for ids in (ids, kind["ids"])]
                print(f"{name}: llama.cpp has other ids from {at} on: {tokens[0]} for {tokens[1]}")


if __name__ == "__main__":
    main()
