"""Directories that `bitnet convert --to hf` writes, read by transformers: its logits against the goldens.

    cargo build --release
    pip install -r crates/bitnet-testkit/golden/requirements.txt
    python crates/bitnet-testkit/golden/check_transformers.py
"""

import glob
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
BITNET = os.path.join(HERE, "..", "..", "..", "target", "release", "bitnet")


def main():
    worst = 0.0
    sources = [(p, f"{p}/golden.safetensors") for p in sorted(glob.glob(f"{HERE}/*/")) if os.path.exists(f"{p}/config.json")
               and "glm4" not in p]  # read, not written
    ternary = ("bitnet-b1.58-i2_s", "bitnet-tq2_0", "bitnet-tq1_0-scale", "llama-tq2_0")
    sources += [(f"{HERE}/gguf/{name}.gguf", f"{HERE}/gguf/{name}.golden.safetensors") for name in ternary]
    for source, golden in sources:
        golden = load_file(golden)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([BITNET, "convert", source, f"{folder}/hf", "--to", "hf"], check=True, capture_output=True)
            model = AutoModelForCausalLM.from_pretrained(f"{folder}/hf", attn_implementation="eager", dtype=torch.float32)
            # The loader leaves tensors that are not packed in their stored type; the goldens are computed in f32.
            model = torch.nn.Module.float(model).eval()
            with torch.no_grad():
                logits = model(golden["input_ids"].long().reshape(1, -1)).logits[0]
        error = ((logits - golden["logits"]).abs().max() / golden["logits"].abs().max()).item()
        worst = max(worst, error)
        print(f"{os.path.basename(os.path.normpath(source)):32} {error:.1e}", flush=True)
    print(f"worst {worst:.1e}")
    sys.exit(worst > 1e-3)


if __name__ == "__main__":
    main()
