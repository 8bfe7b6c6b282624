"""The chance of fitting, from errors worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from advisor.devices import load_gpu
from advisor.hub import load_model
from advisor.ladder import classify
from advisor.memory import estimate_memory
from advisor.memory.chance import fit_probability
from advisor.memory.runtime import ResidualShares
from advisor.values import Fit, Interval, MemoryBreakdown, Phase, PhaseBytes, Plan, Term, TermBytes

GB = 10**9
# four measured runs: one needed a tenth of what moves less than predicted, one as much, one a tenth and one a fifth more
ERRORS = ResidualShares((-0.1, 0.0, 0.1, 0.2), 0.1, 0.2)


def memory(low: float = 0.1, high: float = 0.2, context_bytes: int = 0) -> MemoryBreakdown:
    """10 GB expected, all of it moving."""
    term = TermBytes(term=Term.ACTIVATIONS, bytes=10 * GB)
    return MemoryBreakdown(
        source="estimate",
        phases=(PhaseBytes(phase=Phase.BACKWARD, terms=(term,)),),
        reserved_slack_bytes=0,
        context_bytes=0,
        interval=Interval(low_share=low, high_share=high, context_bytes=context_bytes, source="hand"),
    )


# usable GB → k of the four runs would have fitted, k / 5
@pytest.mark.parametrize(
    ("usable", "fitted", "interval"),
    [
        (13, 4, {}),
        (12, 4, {}),
        (11.9, 3, {}),
        (11, 3, {}),
        (10, 2, {}),
        (9.5, 1, {}),
        (9, 1, {}),
        (8.9, 0, {}),
        (12, 3, {"high": 0.4}),  # twice as wide above: errors of 0.2 and 0.4, room for 0.2
        (14, 4, {"high": 0.4}),
        (8, 1, {"low": 0.2}),
        (11, 4, {"high": 0.1}),  # calibrated: half as wide
        (12, 3, {"context_bytes": GB}),  # the context may take one of the two
        (9.5, 2, {"context_bytes": GB}),
        (10.1, 4, {"high": 0.0}),  # no error above is known of
    ],
)
def test_by_hand(usable, fitted, interval, monkeypatch):
    monkeypatch.setattr("advisor.memory.chance.residual_shares", lambda tier: ERRORS)
    assert fit_probability(memory(**interval), int(usable * GB)) == fitted / 5


@given(st.integers(8, 200), st.integers(0, 40), st.sampled_from(["T4", "3090", "H100", "RTX 5090"]))
def test_more_memory_is_never_less_likely_and_a_fit_is_likely(usable_gb, more_gb, gpu):
    card = load_gpu(gpu)
    priced = estimate_memory(load_model("llama-3.1-8b"), Plan(), card)
    chance = fit_probability(priced, usable_gb * GB)
    assert 0 <= chance <= fit_probability(priced, (usable_gb + more_gb) * GB) < 1
    if classify(priced, usable_gb * GB) is Fit.FITS:
        assert chance >= 0.9


def test_without_a_card_there_is_no_chance_to_speak_of():
    assert estimate_memory(load_model("llama-3.1-8b"), Plan()).fit_probability is None
