"""A training run as the ledger holds it: what was asked for, what happened, how it scored. What is not known is None."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from advisor.values.evidence import AdapterFacts, LossPoint, Number, PositiveNumber, Share, all_finite
from advisor.values.plan import Plan
from advisor.values.request import MAX_TOKENS, Amount, Count, LearningRate, Precision, Request
from advisor.values.vocabulary import SCHEMA_VERSION, Bytes, DType, Method, Positive, Value

PERCENT = 100
ROUNDING = 0.005
"""A score may be rounded to half a point; further than that from the mean of its items it contradicts them. Judgement."""
LOWER_IS_BETTER = frozenset({"loss", "perplexity", "ppl", "error", "wer", "cer", "mae", "mse", "rmse", "bits", "bpb"})
"""Metrics that count downwards, by the words of their names: bits per byte, too."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Evaluation(Value):
    """One score on one set of items."""

    metric: str = ""
    score: Number
    """A share, a percentage or a mean; the mean of the items where it is not given."""
    n: Positive | None = None
    """Items that it was computed from."""
    standard_error: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    higher_is_better: bool = True
    items: tuple[Finite, ...] = ()
    """The result of every item: 1 or 0 for right or wrong."""
    item_ids: tuple[str, ...] = ()
    """In the order of the items, so that two runs can be paired."""
    target: Number | None = None
    """What the score is meant to reach."""
    retention: bool = False
    """A general benchmark, which tells what was forgotten."""
    truncated_rank: Positive | None = None
    """Of the run's adapter, cut to this rank without training."""
    epoch: PositiveNumber | None = None
    """In the middle of training; None: at its end."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = {key: value for key, value in data.items() if value is not None}
        items, metric = data.get("items") or (), str(data.get("metric", "")).lower()
        if isinstance(items, (list, tuple)) and items and all(isinstance(item, (bool, int, float)) for item in items):
            data.setdefault("n", len(items))
            data.setdefault("score", sum(items) / len(items))
        if not LOWER_IS_BETTER.isdisjoint(metric.replace("-", "_").split("_")):
            data.setdefault("higher_is_better", False)
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Evaluation:
        if self.items and self.n != len(self.items):
            raise ValueError(f"n is {self.n}, but there are {len(self.items)} items")
        if self.item_ids and len(self.item_ids) != len(self.items):
            raise ValueError(f"item_ids: {len(self.item_ids)} names for {len(self.items)} items")
        if len(set(self.item_ids)) < len(self.item_ids):
            raise ValueError("item_ids: an item is named twice")
        if self.items:
            mean = sum(self.items) / len(self.items)
            if min(abs(self.score - mean), abs(self.score / PERCENT - mean)) > ROUNDING * max(1.0, abs(mean)):
                raise ValueError(f"score is {self.score:g}, but the mean of the items is {mean:.4g}; leave one of them out")
        return self

    @property
    def is_final(self) -> bool:
        """Of the whole adapter at the end of training, on what it was trained for."""
        return self.epoch is None and self.truncated_rank is None and not self.retention


class RunRecord(Request):
    """A run: every option of a request that is known, and what became of it. `batch_size` is the micro-batch, as in a request."""

    schema_version: str = SCHEMA_VERSION
    id: Positive | None = None
    """Number in the ledger, given when it is stored."""
    recorded_at: str = ""
    """UTC, ISO 8601."""
    name: str = ""
    kind: Literal["training", "base"] = "training"
    """`base`: the untuned model, which was only evaluated."""
    model: str | None = None
    gpu: str | None = None
    plan: Plan | None = None
    """The whole set-up, where it is known; the options then follow from it."""
    use_rslora: bool | None = None
    init: str | None = None
    """Initialisation of the adapter other than peft's own: pissa, loftq, olora …"""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    adapter_params: Positive | None = None
    learning_rate: LearningRate | None = None
    """Highest of the schedule."""
    lr_schedule: str | None = None
    lr_tuned: bool | None = None
    """It was swept for exactly this set-up, although those runs are not in the ledger."""
    effective_batch: Count | None = None
    """Sequences per optimizer step, over all cards."""
    steps: Annotated[int, Field(gt=0, le=MAX_TOKENS)] | None = None
    """Optimizer steps that were done."""
    epochs: PositiveNumber | None = None
    tokens: Amount | None = None
    """Seen in training, all epochs together."""
    examples: Amount | None = None
    """Of the training set."""
    data_fraction: Share | None = None
    """Share of the training set that was used: below 1 for pilots and half-data controls."""
    seed: int | None = None
    seconds: PositiveNumber | None = None
    """Of training."""
    train_losses: tuple[LossPoint, ...] = ()
    eval_losses: tuple[LossPoint, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    oom: bool | None = None
    """It ran out of memory."""
    diverged: bool | None = None
    unfinished: bool = False
    """It began, and its end was not reported."""
    peak_allocated_bytes: Bytes | None = None
    """Largest, per card: `torch.cuda.max_memory_allocated()`."""
    peak_bytes: Bytes | None = None
    """Largest that was reserved, per card: `torch.cuda.max_memory_reserved()`."""
    adapter: AdapterFacts | None = None
    """What an inspection of the saved adapter showed."""
    source: str = ""
    """Where it was read from."""
    versions: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    """What was taken to mean what, one line each."""

    @field_validator("train_losses", "eval_losses", mode="before")
    @classmethod
    def _curve(cls, value: Any) -> Any:
        """Accepts [[step, loss], …]."""
        if not isinstance(value, (list, tuple)):
            return value
        if set(map(type, value)) == {list} and set(map(len, value)) == {2}:
            return [{"step": step, "loss": loss} for step, loss in value]
        return [{"step": point[0], "loss": point[1]} if isinstance(point, (list, tuple)) and len(point) == 2 else point for point in value]

    @field_serializer("train_losses", "eval_losses")
    def _compact(self, points: tuple[LossPoint, ...]) -> list[tuple[float, float | str]]:
        """[[step, loss], …]. JSON has no NaN: it is written as a word, and read back."""
        return [(point.step, point.loss if point.is_finite else str(point.loss)) for point in points]

    @model_validator(mode="after")
    def _consistent(self) -> RunRecord:
        if self.quantization is not None and self.method in (Method.LORA, Method.DORA):
            raise ValueError(f"quantization: {self.method.label} on a quantised base is called Q{self.method.label}")
        if self.quantization is not None and self.method is Method.FULL:
            raise ValueError("quantization: full fine-tuning does not train quantised weights")
        if self.oom and any(evaluation.epoch is None for evaluation in self.evaluations):
            raise ValueError("oom: a run that ran out of memory has no score at its end")
        if self.kind == "base" and (self.method or self.plan or self.train_losses or self.learning_rate):
            raise ValueError("kind: the untuned model has no method, plan, learning rate or training loss")
        return self

    @property
    def label(self) -> str:
        """ "3" or "3 short-name": how lists and errors call it."""
        return " ".join(str(part) for part in (self.id, self.name) if part) or "new run"

    @property
    def sequences_per_step(self) -> int | None:
        """The effective batch, or what the micro-batch, the accumulation and the cards make of it; unknown factors count once."""
        if self.effective_batch is not None or self.batch_size is None:
            return self.effective_batch
        return self.batch_size * (self.grad_accum or 1) * (self.gpus or 1)

    @property
    def has_diverged(self) -> bool:
        """It was said to, or a loss is not a number."""
        return bool(self.diverged) or not all_finite(self.train_losses, self.eval_losses)

    @property
    def final_score(self) -> Evaluation | None:
        """The last one of its kind."""
        return next((entry for entry in reversed(self.evaluations) if entry.is_final), None)

    @property
    def best_eval_loss(self) -> float | None:
        return min((point.loss for point in self.eval_losses if math.isfinite(point.loss)), default=None)


def options_of(plan: Plan) -> Request:
    """The plan as a request that asks for exactly it."""
    adapter = plan.method.has_adapter
    return Request(
        method=plan.method,
        rank=plan.rank if adapter else None,
        alpha=plan.alpha if adapter else None,
        lora_dropout=plan.lora_dropout if adapter else None,
        target_modules=plan.target_modules if adapter else None,
        batch_size=plan.micro_batch_size,
        seq_len=plan.seq_len_tokens,
        grad_accum=plan.grad_accum_steps,
        optimizer=plan.optimizer,
        precision=_precision(plan),
        quantization=plan.quantization,
        double_quant=plan.double_quant if plan.quantization else None,
        kbit_prepare=plan.kbit_prepare if plan.quantization else None,
        checkpointing=plan.gradient_checkpointing,
        attention=plan.attention,
        loss=plan.loss,
        stack=plan.stack,
        shard=plan.sharding if plan.has_engine else None,
        reentrant=plan.use_reentrant if plan.gradient_checkpointing else None,
        gpus=plan.n_gpus,
    )


def _precision(plan: Plan) -> Precision | None:
    """None where no word of the vocabulary says it: 16-bit weights under autocast."""
    if not plan.autocast:
        return Precision(plan.base_dtype.value)
    return Precision(f"{plan.autocast_dtype.value}-amp") if plan.base_dtype is DType.FP32 else None
