"""A model that trains in a second on any processor, from a config and random weights: nothing is downloaded. The other examples use it."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TOKENS = 32


def model() -> Any:
    torch.manual_seed(1)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
        max_position_embeddings=128,
    )
    return LlamaForCausalLM(config).to(torch.bfloat16)


def examples() -> list[dict[str, list[int]]]:
    return [{"input_ids": [1 + number] * TOKENS, "labels": [1 + number] * TOKENS} for number in range(8)]


def tokenizer() -> Any:
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[EOS]": 2}, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]")
