"""The options of `advise` and its like, for editors and type checkers: the fields of `Request`, as a caller may write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from advisor.values.request import Precision, Task
from advisor.values.sharing import Offload
from advisor.values.vocabulary import Attention, Head, Loss, Method, Mixers, Optimizer, Quantization, Sharding, Stack


class Options(TypedDict, total=False):
    """What is left out is chosen by the tool. Words and numbers may be text, as on the command line: "4k", "30M", "qlora"."""

    method: Method | str | None
    rank: int | str | None
    alpha: float | str | None
    lora_dropout: float | str | None
    target_modules: Iterable[str] | str | None
    batch_size: int | str | None
    seq_len: int | str | None
    grad_accum: int | str | None
    images: int | str | None
    image_size: tuple[int, int] | str | None
    optimizer: Optimizer | str | None
    precision: Precision | str | None
    quantization: Quantization | str | None
    double_quant: bool | None
    kbit_prepare: bool | None
    checkpointing: bool | None
    padding: bool | None
    attention: Attention | str | None
    mixers: Mixers | str | None
    head: Head | str | None
    labels: int | str | None
    loss: Loss | str | None
    stack: Stack | str | None
    shard: Sharding | str | None
    offload: Iterable[Offload | str] | str | None
    shard_group: int | str | None
    sync_each_batch: bool | None
    host_memory: int | str | None
    reentrant: bool | None
    gpus: int | str | None
    dataset_tokens: int | str | None
    epochs: float | str | None
    price: float | str | None
    task: Task | str | None
    eval_items: int | str | None
    budget: float | str | None
