"""The chance of fitting, from errors worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from advisor.devices import load_gpu
from advisor.hub import load_model
from advisor.ladder import classify
from advisor.memory import estimate_memory
from advisor.memory.chance import fit_probability
from advisor.memory.intervals import Bounds
from advisor.values import Fit, Interval, MemoryBreakdown, Phase, PhaseBytes, Plan, Term, TermBytes

GB = 10**9
# four measured runs: one needed a tenth less than predicted, one as much, one a tenth and one a fifth more
ERRORS = Bounds((-0.1, 0.0, 0.1, 0.2), effective=4, groups=2, low=-0.1, high=0.2, unlike="", ran=3, kin=True, bias=0.0, sources="four runs")


def memory(low: float = 0.1, high: float = 0.2, context_bytes: int = 0) -> MemoryBreakdown:
    """10 GB expected, all of it reserved."""
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
def test_by_hand(usable, fitted, interval):
    assert fit_probability(memory(**interval), ERRORS, int(usable * GB)) == fitted / 5


def test_a_kind_that_nothing_was_measured_of_is_never_likelier_than_its_groups_allow():
    """Of two groups the widest error covers a third with 2/3 at most; pairs of errors count as the fewer of their lists."""
    unseen = ERRORS._replace(unlike="FSDP1")
    assert fit_probability(memory(), unseen, 13 * GB) == round(4 / 5 * 2 / 3, 3)
    assert fit_probability(memory(), ERRORS._replace(effective=1), 13 * GB) == 1 / 2
    assert fit_probability(memory(), ERRORS._replace(errors=()), 13 * GB) == 0.0


@given(st.integers(8, 200), st.integers(0, 40), st.sampled_from(["T4", "3090", "H100", "RTX 5090"]))
def test_more_memory_is_never_less_likely_and_a_fit_is_likely(usable_gb, more_gb, gpu):
    model, plan = load_model("llama-3.1-8b"), Plan()

    def on(size_gb):
        card = load_gpu(gpu).model_copy(update={"usable_bytes": size_gb * GB})
        return estimate_memory(model, plan, card)

    chance = on(usable_gb).fit_probability
    assert 0 <= chance <= on(usable_gb + more_gb).fit_probability < 1
    if classify(on(usable_gb), usable_gb * GB) is Fit.FITS:
        assert chance >= 0.85


def test_without_a_card_there_is_no_chance_to_speak_of():
    assert estimate_memory(load_model("llama-3.1-8b"), Plan()).fit_probability is None
