"""Unigram goldens (T5's kind): a tiny model trained here, ids by Hugging Face tokenizers and by llama.cpp from its own file.

Writes unigram.golden.json beside itself. Made with tokenizers 0.23.3, gguf 0.19.0, llama-cpp-python 0.3.36:
  python make_unigram_goldens.py
"""

import json
from pathlib import Path

from make_goldens import LlamaCpp, corpus
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = ["", " ", "the", "Hello  world ", "  two   spaces", "thethe nothing ßtrange 你好 🙂", "naïve Façade É", "123 4567", "</s> <unk>", "a\nb\tc", "x" * 40]


def main():
    lines = [line.replace("▁", "") for line in corpus(11, 400)]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trainer = trainers.UnigramTrainer(vocab_size=320, unk_token="<unk>", special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    golden = {}
    kinds = {
        "t5": normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]),
        "stripped": normalizers.Sequence([normalizers.Nmt(), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]),
    }
    for name, normalizer in kinds.items():
        tokenizer.normalizer = normalizer
        cases = [{"text": t, "ids": tokenizer.encode(t).ids, "decoded": tokenizer.decode(tokenizer.encode(t).ids)} for t in TEXTS]
        golden[name] = {"tokenizer": json.loads(tokenizer.to_str()), "cases": cases}
    pieces = golden["t5"]["tokenizer"]["model"]["vocab"]
    vocab = {"model": "t5", "pre": "default", "tokens": [p for p, _ in pieces], "scores": [s for _, s in pieces], "merges": [],
             "token_types": [3, 3, 2] + [1] * (len(pieces) - 3), "bos": None, "eos": 1, "unk": 2, "eot": None, "add_bos": False, "add_eos": True,
             "add_space_prefix": True, "remove_extra_whitespaces": True}
    llama = LlamaCpp(vocab)
    for case in golden["t5"]["cases"]:
        case["llama_cpp"] = llama.encode(case["text"], True, True)
    same = sum(c["ids"] == c["llama_cpp"] for c in golden["t5"]["cases"])
    Path(__file__).with_name("unigram.golden.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")), encoding="utf8")
    print(f"{len(pieces)} pieces; Hugging Face and llama.cpp agree on {same} of {len(TEXTS)} texts")


if __name__ == "__main__":
    main()
