"""Files that `bitnet convert` writes, read by llama.cpp and by gguf-py.

    cargo build --release
    pip install llama-cpp-python gguf
    python crates/bitnet-testkit/golden/check_llama_cpp.py

For the llama-architecture ternary model of the golden data: converted to TQ2_0 and TQ1_0, loaded by llama.cpp, its greedy
tokens compared with transformers'. Its `bitnet` architecture computes SiLU whatever the file says, so for the model in the
tree (relu^2) only loading is checked. llama.cpp quantizes activations in blocks of 256, BitNet a token at a time: logits differ
by a few percent.
"""

import os
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np
from safetensors.numpy import load_file

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..", "..")
BITNET = os.path.join(ROOT, "target", "release", "bitnet")


def convert(source, target, out):
    subprocess.run([BITNET, "convert", source, out, "--to", target], check=True, capture_output=True)
    for tensor in gguf.GGUFReader(out).tensors:
        if tensor.tensor_type.name in ("TQ1_0", "TQ2_0", "F16", "F32"):
            assert np.isfinite(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).all(), tensor.name


def greedy(path, prompt, count):
    model = llama_cpp.Llama(path, n_ctx=128, logits_all=True, verbose=False, n_threads=1)
    tokens = list(prompt)
    logits = []
    model.eval(tokens)
    for _ in range(count):
        logits.append(np.array(model.scores[model.n_tokens - 1]))
        tokens.append(int(np.argmax(logits[-1])))
        model.eval(tokens[-1:])
    return tokens, logits


def main():
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        golden = load_file(f"{HERE}/gguf/llama-tq2_0.golden.safetensors")
        prompt, expected = golden["input_ids"].tolist(), golden["greedy_ids"].tolist()
        for target in ("tq2_0", "tq1_0"):
            path = f"{folder}/llama-{target}.gguf"
            convert(f"{HERE}/gguf/llama-tq2_0.gguf", target, path)
            tokens, _ = greedy(path, prompt, len(expected) - len(prompt))
            same = tokens == expected
            failed |= not same
            print(f"llama {target}: llama.cpp's greedy tokens {'equal' if same else 'differ from'} transformers'", tokens[len(prompt):], expected[len(prompt):])
        path = f"{folder}/bitnet-tq2_0.gguf"
        convert(f"{ROOT}/models/shakespeare.gguf", "tq2_0", path)
        tokens, _ = greedy(path, [2, 3, 4], 4)
        print("bitnet tq2_0: loads in llama.cpp, which computes SiLU for it:", tokens)
    sys.exit(failed)


if __name__ == "__main__":
    main()
