"""The closed form against dry runs of the same plans (`profiles/measurements/replays/`; `benchmarks/replays.py` and `trace_grid.py`
make them): what its approximation of the allocator's idle memory is off by."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from advisor.accuracy.intervals import Coverage, Residual, coverages
from advisor.accuracy.tiers import not_kept_bytes, with_outputs
from advisor.errors import UnsupportedError
from advisor.memory import estimate_memory
from advisor.memory.kinds import kind_of
from advisor.memory.pools import REPLAY, errors_of
from advisor.profiles import read
from advisor.values import ModelSpec, Plan


def replay_residuals() -> Iterator[Residual]:
    """One per replay that the closed form prices, grouped by model."""
    from advisor.hub import load_model

    for number, row in enumerate(read("measurements/replays")):
        model, plan = load_model(row["model"]), Plan(**row["plan"])
        try:
            predicted = estimate_memory(model, plan).peak_reserved_bytes
        except UnsupportedError:  # a setting that the closed form does not price
            continue
        keeps = row["options"].get("keep_outputs", True)
        share = round(row["reserved_bytes"] / (predicted - (0 if keeps else not_kept_bytes(model, plan))) - 1, 5)
        kind = with_outputs(kind_of(model, plan, None), plan, keeps)
        yield Residual(id=str(number), group=model.id, metric="reserved", kind=kind, share=share)


def replayed_like(model: ModelSpec) -> tuple[str, ...]:
    """The replayed models of the same width and depth: what was measured on `model` is no news of them."""
    return tuple(name for name, shape in _replayed_shapes() if shape == _shape(model))


@cache
def _replayed_shapes() -> tuple[tuple[str, tuple[int, int]], ...]:
    from advisor.hub import load_model

    return tuple((name, _shape(load_model(name))) for name in sorted({entry.group for entry in errors_of(REPLAY)}))


def _shape(model: ModelSpec) -> tuple[int, int]:
    return model.hidden_size, model.layers


@cache
def replay_coverages() -> tuple[Coverage, ...]:
    """How often bounds made of the dry runs of other models hold the closed form's error on a model's own."""
    return coverages(
        REPLAY,
        [
            Residual(id="", group=entry.group, metric="reserved", kind=entry.kind, share=share)
            for entry in errors_of(REPLAY)
            for share in entry.shares
        ],
    )
