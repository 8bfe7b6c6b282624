"""How long the diagnosis of a large adapter takes: `python benchmarks/inspect_70b.py [--rank 64] [--dtype BF16|F32] [--truncate]`.

Makes an adapter of Llama-3.1-70B's shapes, every linear layer of all 80 (560 modules), in a temporary folder, and reads it in a process
of its own. Aim: under 60 s at rank 64 on two cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from advisor.adapters.tensors import NewTensor, write_header

LAYERS = 80
# (in, out) of each matrix: hidden 8192, 8 key-value heads of 128, feed-forward 28672 (meta-llama/Llama-3.1-70B config.json).
MODULES = {
    "self_attn.q_proj": (8192, 8192),
    "self_attn.k_proj": (8192, 1024),
    "self_attn.v_proj": (8192, 1024),
    "self_attn.o_proj": (8192, 8192),
    "mlp.gate_proj": (8192, 28672),
    "mlp.up_proj": (8192, 28672),
    "mlp.down_proj": (28672, 8192),
}


def tensors(rank: int, dtype: str) -> Iterator[NewTensor]:
    for layer in range(LAYERS):
        for name, (inputs, outputs) in MODULES.items():
            module = f"base_model.model.model.layers.{layer}.{name}"
            yield NewTensor(f"{module}.lora_A.weight", dtype, (rank, inputs))
            yield NewTensor(f"{module}.lora_B.weight", dtype, (outputs, rank))


def make_adapter(folder: Path, rank: int, dtype: str) -> None:
    """Random factors whose columns fall off, so that the spectra look trained rather than flat."""
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": "all-linear", "init_lora_weights": True}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    random = np.random.default_rng(0)
    fall = np.arange(1, rank + 1, dtype=np.float32) ** -0.5
    with (folder / "adapter_model.safetensors").open("wb") as stream:
        write_header(stream, tensors(rank, dtype), {"format": "pt"})
        for tensor in tensors(rank, dtype):
            values = random.standard_normal(tensor.shape, dtype=np.float32) * 0.01
            values = values * fall if tensor.name.endswith("lora_B.weight") else values
            stream.write((values.view(np.uint32) >> 16).astype("<u2").tobytes() if dtype == "BF16" else values.tobytes())


def timed(*arguments: str) -> None:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "advisor", "inspect", *arguments], stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - start
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"advise inspect {' '.join(arguments[1:])}: {seconds:.1f} s, at most {peak_mib:,.0f} MiB resident so far")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--dtype", choices=["BF16", "F32"], default="BF16")
    parser.add_argument("--truncate", action="store_true", help="also write the adapter cut to half the rank")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "adapter"
        folder.mkdir()
        make_adapter(folder, options.rank, options.dtype)
        size_bytes = (folder / "adapter_model.safetensors").stat().st_size
        print(f"{LAYERS * len(MODULES)} modules at rank {options.rank} in {options.dtype}: {size_bytes / 1e9:.2f} GB")
        timed(str(folder))
        if options.truncate:
            timed(str(folder), "--truncate", str(options.rank // 2))


if __name__ == "__main__":
    main()
