"""Which matrices stay as they are in a quantised model: beside what transformers' own loader leaves on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.dryrun.load import is_kept, kept_modules

transformers = pytest.importorskip("transformers")
bitsandbytes = pytest.importorskip("bitsandbytes")

TINY = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
T5 = {"vocab_size": 128, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4}
CASES = {
    "t5": (T5, "AutoModelForSeq2SeqLM"),  # its `wo` is kept in fp32 at need, and never quantised
    "mt5": (T5, "AutoModelForSeq2SeqLM"),
    "llama": ({**TINY, "num_key_value_heads": 2}, "AutoModelForCausalLM"),
    "gpt_neox": (TINY, "AutoModelForCausalLM"),
    "bart": ({"vocab_size": 128, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 96}, "AutoModelForSeq2SeqLM"),
}


def linears(model: Any, kind: type) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, kind)}


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("model_type", CASES)
def test_what_stays_unquantised_is_what_transformers_leaves(model_type: str, tmp_path: Path) -> None:
    import torch

    content, auto = CASES[model_type]
    auto_class = getattr(transformers, auto)
    model = auto_class.from_config(transformers.AutoConfig.for_model(model_type, **content))
    kept = kept_modules(model)
    quantised = {name for name in linears(model, torch.nn.Linear) if not is_kept(name, kept)}
    model.save_pretrained(tmp_path)
    settings = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    loaded = auto_class.from_pretrained(tmp_path, quantization_config=settings, dtype=torch.bfloat16, device_map={"": "cpu"})
    assert quantised == linears(loaded, bitsandbytes.nn.Linear4bit)
    assert quantised < linears(model, torch.nn.Linear)
