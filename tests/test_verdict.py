"""The rule of verdicts as laws: what can only raise, only lower, or move either way, against the priced interval."""

from __future__ import annotations

from hypothesis import given, strategies as st

from advisor.configs.verdict import bounds_of, settle
from advisor.hub import load_model
from advisor.memory import estimate_memory
from advisor.stacks.reading import LAYERS_STAY, LOGITS_STAY, NOTHING_STAYS, RESTING_STAYS, WEIGHTS_STAY, Kept, Remark, Way
from advisor.values import Fit, Plan

MODEL, PLAN = load_model("llama-3-8b"), Plan(seq_len_tokens=4096)
MEMORY = estimate_memory(MODEL, PLAN)
SIZES = st.integers(1, 2 * MEMORY.high_bytes)
KEPT = st.sampled_from([NOTHING_STAYS, WEIGHTS_STAY, RESTING_STAYS, LOGITS_STAY, LAYERS_STAY, Kept(0.5, 0.5, 0.5, 0.5), Kept(1, 1, 1, 1)])
REMARKS = st.lists(
    st.builds(
        Remark,
        id=st.just("not-priced"),
        key=st.sampled_from(["a", "b", "c", "d", "e", "f"]),
        text=st.just("text"),
        way=st.sampled_from([*Way, None]),
        keeps=KEPT,
        adds_hidden=st.sampled_from([None, 0, 1, 5]),
    ),
    max_size=6,
)


@given(REMARKS, SIZES)
def test_the_bounds_hold_the_priced_interval_and_decide(remarks: list[Remark], usable_bytes: int) -> None:
    bounds = bounds_of(MODEL, PLAN, MEMORY, [remark for remark in remarks if remark.way])
    assert 0 <= bounds.floor_bytes <= MEMORY.low_bytes
    assert bounds.ceiling_bytes is None or bounds.ceiling_bytes >= MEMORY.high_bytes
    settled = settle(MODEL, PLAN, MEMORY, remarks, usable_bytes=usable_bytes)
    assert (settled.fit is Fit.DOES_NOT_FIT) == (bounds.floor_bytes > usable_bytes)
    assert (settled.fit is Fit.FITS) == (bounds.ceiling_bytes is not None and bounds.ceiling_bytes <= usable_bytes)


@given(REMARKS, SIZES)
def test_remarks_only_open_a_verdict_and_are_named(remarks: list[Remark], usable_bytes: int) -> None:
    settled = settle(MODEL, PLAN, MEMORY, remarks, usable_bytes=usable_bytes)
    assert settled.fit in (settled.priced_fit, Fit.UNCERTAIN)
    assert bool(settled.reason) == any(remark.way for remark in remarks)
    assert "\n" not in settled.reason
    if settled.fit is not settled.priced_fit:
        ways = (Way.UP, Way.EITHER) if settled.priced_fit is Fit.FITS else (Way.DOWN, Way.EITHER)
        assert next(remark.key for remark in remarks if remark.way in ways) in settled.reason


@given(SIZES)
def test_the_ways(usable_bytes: int) -> None:
    """Only lowers: a fit stays one. Only raises: a no stays one. Either: both are open, down to what stays."""
    priced = settle(MODEL, PLAN, MEMORY, (), usable_bytes=usable_bytes).fit
    down = settle(MODEL, PLAN, MEMORY, [Remark("i", "k", "t", way=Way.DOWN)], usable_bytes=usable_bytes).fit
    up = settle(MODEL, PLAN, MEMORY, [Remark("i", "k", "t", way=Way.UP)], usable_bytes=usable_bytes).fit
    either = settle(MODEL, PLAN, MEMORY, [Remark("i", "k", "t", way=Way.EITHER)], usable_bytes=usable_bytes).fit
    assert down is Fit.FITS if priced is Fit.FITS else down is not Fit.FITS
    assert up is Fit.DOES_NOT_FIT if priced is Fit.DOES_NOT_FIT else up is Fit.UNCERTAIN
    assert either in (Fit.UNCERTAIN, down)


def test_parts_that_stay_add_up_to_the_low_end() -> None:
    """A remark that lets everything stay bounds the memory by its own low end."""
    kept = [Remark("i", "k", "t", way=Way.DOWN, keeps=Kept(1, 1, 1, 1))]
    assert abs(bounds_of(MODEL, PLAN, MEMORY, kept).floor_bytes - MEMORY.low_bytes) < 8
    halves = [Remark("i", "k", "t", way=Way.DOWN, keeps=Kept(0.5, 0.5, 0.5, 0.5))]
    context = MEMORY.context_bytes - MEMORY.interval.context_bytes
    assert abs(2 * (bounds_of(MODEL, PLAN, MEMORY, halves).floor_bytes - context) - (MEMORY.low_bytes - context)) < 16


def test_without_a_card_the_line_speaks() -> None:
    settled = settle(MODEL, PLAN, MEMORY, [Remark("i", "my_key", "t", way=Way.EITHER)])
    assert (settled.fit, settled.reason) == (None, "not priced: my_key may move it")
