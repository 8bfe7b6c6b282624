"""Intervals by kind of plan: order statistics by hand, which errors speak for which plan, and what is said where none do."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from advisor.devices import load_gpu
from advisor.hub import load_model
from advisor.ladder import classify
from advisor.memory import estimate_memory, intervals, pools
from advisor.memory.conformal import bounds, steps
from advisor.memory.intervals import bounds_of, interval, interval_of
from advisor.memory.kinds import BOUNDARIES, Kind, kind_of
from advisor.memory.pools import ESTIMATE, REPLAY, TRACE, Errors
from advisor.units import GIB
from advisor.values import Fit, Loss, Plan

LLAMA = load_model("llama-3.1-8b")
KIND = kind_of(LLAMA, Plan(), None)

# n, coverage → ranks by hand: floor((n+1)·t) from below and ceil((n+1)(1−t)) from above, t half of the rest
RANKS = [
    (19, 0.90, 1, 19),  # 20·0.05 = 1, 20·0.95 = 19
    (39, 0.90, 2, 38),
    (99, 0.90, 5, 95),
    (99, 0.80, 10, 90),
    (9, 0.80, 1, 9),
    (5, 0.90, 1, 5),  # too few: the extremes
    (45, 0.90, 2, 44),  # 46·0.05 = 2.3, 46·0.95 = 43.7
]


@pytest.mark.parametrize(("n", "coverage", "low_rank", "high_rank"), RANKS)
def test_conformal_ranks(n, coverage, low_rank, high_rank):
    assert bounds([float(value) for value in range(n, 0, -1)], coverage) == (low_rank, high_rank)


def test_steps_by_hand():
    """Without y the highest is 0.05, so that y steps 0.15 beyond it; without x the lowest is −0.01, a step of 0.04."""
    groups = {"x": (-0.05, 0.0), "y": (0.02, 0.20), "z": (-0.01, 0.05)}
    assert steps(groups) == pytest.approx((-0.04, 0.15))
    assert steps({"x": (0.1,)}) == (0.0, 0.0)


@pytest.fixture
def known(monkeypatch):
    """Sets the three lists of errors; what was kept of others is forgotten before and after."""
    caches = (pools._within_boundaries, pools._everything, pools.pool_of, intervals.bounds_of, intervals.interval)

    def forget():
        for kept in caches:
            kept.cache_clear()

    def set_to(**lists):
        forget()
        for module in (pools, intervals):
            monkeypatch.setattr(module, "errors_of", lambda name: tuple(lists.get(name, ())))

    yield set_to
    forget()


def errors(group, *shares, kind=KIND, metric="reserved"):
    return Errors(kind, group, metric, shares)


FIVE = (-0.02, -0.01, 0.0, 0.01, 0.02)


def test_the_most_specific_kind_with_enough_errors_speaks(known):
    open_loop = KIND._replace(checkpointing="no checkpointing")
    seldom = [errors(group, share, kind=open_loop) for group, share in (("x", 0.3), ("y", 0.4), ("z", 0.35))]
    known(trace=[errors("x", *FIVE), errors("y", *FIVE), errors("z", 0.01), *seldom])
    own, wider = bounds_of(TRACE, KIND), bounds_of(TRACE, open_loop)
    assert (own.low, own.high, own.unlike, own.ran, len(own.errors)) == (-0.02, 0.02, "", 3, 11)
    assert (wider.low, wider.high, wider.unlike, wider.ran, len(wider.errors)) == (-0.02, 0.4, "", 3, 14)  # three of its own, eleven beside


@pytest.mark.parametrize(("groups", "said"), [("x", "one source alone"), ("xy", "two sources alone"), ("xyz", "")])
def test_a_kind_is_wide_until_three_sources_and_cards_ran_it(known, groups, said):
    """Fused loss lies 0.03 above; with as many groups as are known it is bounded by its own errors and as much as others differ."""
    fused = KIND._replace(loss="fused loss")
    own = [errors(group, *(share + 0.03 for share in FIVE * 2), kind=fused) for group in groups]
    known(trace=[*(errors(group, *FIVE) for group in "xyz"), *own])
    found = bounds_of(TRACE, fused)
    assert found.ran == len(groups)
    assert (found.unlike != "") == bool(said)
    assert said in interval(TRACE, fused).source
    assert found.high == pytest.approx(0.05 if not said else 0.05 + 0.03)  # 0.03: the step between the two kinds


def test_a_kind_that_one_source_alone_ran_is_wide_and_says_so(known):
    fused = KIND._replace(loss="fused loss")
    known(trace=[errors("x", *FIVE), errors("y", *FIVE), errors("z", 0.0, 0.1, kind=KIND), errors("z", *FIVE, kind=fused)])
    found = bounds_of(TRACE, fused)
    assert (found.low, found.high) == pytest.approx((-0.02, 0.02 + 0.08))  # z lies 0.08 above x and y
    assert "one source alone ran this kind (one card, fused loss, checkpointing)" in interval(TRACE, fused).source


def test_one_group_alone_never_narrows(known):
    open_loop = KIND._replace(checkpointing="no checkpointing")
    seldom = errors("x", 0.0, kind=open_loop), errors("y", 0.0, kind=open_loop)
    known(trace=[errors("x", *FIVE), errors("y", *FIVE), *seldom, errors("z", *(10 * share for share in FIVE * 2), kind=open_loop)])
    found = bounds_of(TRACE, open_loop)
    assert (found.unlike, found.low, found.high) == ("", -0.2, 0.2)


@pytest.mark.parametrize(
    ("facet", "value"),
    [
        ("cards", "FSDP1"),
        ("loss", "fused loss"),
        ("extras", "dropout"),
        ("extras", "reentrant checkpointing"),
        ("head", "classification head"),
        ("family", "mixture of experts"),
        ("base", "int8 base"),
        ("maker", "AMD"),
        ("checkpointing", "no checkpointing"),
    ],
)
def test_a_kind_without_a_measured_run_is_wide_and_says_so(known, facet, value):
    """x and y differ by 0.1 on either side: as much is added."""
    known(trace=[errors("x", *FIVE), errors("y", *(share - 0.1 for share in FIVE)), errors("z", *(share + 0.1 for share in FIVE))])
    own, unseen = bounds_of(TRACE, KIND), bounds_of(TRACE, KIND._replace(**{facet: value}))
    assert unseen.unlike == value
    assert (unseen.low, unseen.high) == pytest.approx((own.low - 0.1, own.high + 0.1))
    assert value in interval(TRACE, KIND._replace(**{facet: value})).source


def test_a_group_that_is_left_out_does_not_speak(known):
    known(trace=[errors("x", *FIVE), errors("y", *FIVE), errors("z", 0.5)])
    assert bounds_of(TRACE, KIND).high == 0.5
    assert bounds_of(TRACE, KIND, frozenset("z")).high == 0.02


def test_a_group_that_is_left_out_speaks_in_no_wider_kind_nor_step(known):
    """z alone ran the fused loss and lies far out, there and elsewhere; without it the kind is as far beyond as x and y are apart."""
    fused = KIND._replace(loss="fused loss")
    apart = errors("y", *(share + 0.1 for share in FIVE))
    known(trace=[errors("x", *FIVE), apart, errors("z", 5.0), errors("z", *[5.0] * 10, kind=fused)])
    assert bounds_of(TRACE, fused).high > 5
    assert bounds_of(TRACE, fused, frozenset("z")).high == pytest.approx(0.12 + 0.1)


def test_a_group_that_is_left_out_leaves_the_rule_as_it_was(known):
    """Three groups ran the kind: it is bounded by the errors of the other two, as it is by those of all three, and not widened."""
    known(trace=[errors("x", *FIVE), errors("y", *FIVE), errors("z", *FIVE)])
    found = bounds_of(TRACE, KIND, frozenset("z"))
    assert (found.low, found.high, found.unlike) == (-0.02, 0.02, "")


@given(st.floats(-0.5, 0.9), st.floats(-0.5, 0.9))
def test_an_interval_holds_the_errors_that_it_is_made_of(one, other):
    """Rounding goes outward."""
    for share in (one, other):
        assert intervals._outward(share) >= round(share, 5)
        assert intervals._outward(share) <= max(share, 0) + 2e-4


def test_the_closed_form_is_off_by_both_what_the_dry_run_is_and_what_it_differs_from_it(known):
    ten, none = [0.1] * 10, [0.0] * 10
    known(trace=[errors("x", *ten), errors("y", *none), errors("z", 0.0)], replay=[errors("m", *ten), errors("n", *none)])
    found = bounds_of(ESTIMATE, KIND)
    assert (found.low, found.high) == (0.0, pytest.approx(0.21))  # 1.1 · 1.1
    assert (found.effective, found.bias) == (20, 0.1)
    assert "reserve 10.0 % more in the middle" in interval(ESTIMATE, KIND).source


def test_allocated_memory_speaks_where_no_dry_run_can_be_made(known):
    sharded = KIND._replace(cards="FSDP1")
    own = [errors(group, *shares, kind=sharded, metric="allocated") for group, shares in (("x", [0.04] * 10), ("y", FIVE), ("z", FIVE))]
    known(trace=[errors("x", *FIVE), errors("y", *FIVE)], estimate=own, replay=[errors("m", *FIVE), errors("n", *FIVE)])
    found = bounds_of(ESTIMATE, sharded)
    assert found.unlike == ""
    assert found.high == pytest.approx(1.04 * 1.02 - 1)


def test_without_a_single_error_nothing_is_known(known):
    known()
    assert bounds_of(ESTIMATE, KIND)[3:5] == intervals.NOTHING_KNOWN


# ------------------------------------------------------------------------------------------------ the real errors

# (settings, what the source names)
UNSEEN = [
    ({"n_gpus": 4, "sharding": "zero2"}, "ZeRO-2"),
    ({"quantization": "int8", "method": "qlora"}, "int8 base"),
    ({"stack": "torchtune"}, "torchtune"),
    ({"lora_dropout": 0.05}, "dropout"),
    ({"use_reentrant": True}, "reentrant checkpointing"),
    ({"head": "classification"}, "classification head"),
    ({"loss": Loss.FUSED}, "fused loss"),
]


@pytest.mark.parametrize(("settings", "named"), UNSEEN)
@pytest.mark.parametrize("tier", [ESTIMATE, TRACE])
def test_a_setting_that_no_card_ran_widens_both_tiers(tier, settings, named):
    plan = Plan(**settings)
    like = plan.model_copy(update={name: Plan.model_fields[name].default for name in settings if name not in ("method", "quantization")})
    if "quantization" in settings:
        like = Plan(method="qlora", quantization="nf4")
    own, unseen = (interval_of(tier, LLAMA, each, None) for each in (like, plan))
    assert unseen.high_share + unseen.low_share > own.high_share + own.low_share + 0.05
    assert unseen.source.startswith("wide, because ")
    assert named in unseen.source


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("tier", [ESTIMATE, TRACE])
def test_a_replica_errs_as_one_card_does(tier, method):
    """What DDP adds is counted to the byte (tests/test_sharded_grid.py, tests/test_real_cards.py); shards are another kind."""
    one, replica, shard = (
        interval_of(tier, LLAMA, Plan(method=method, **cards), None)
        for cards in ({}, {"n_gpus": 2, "sharding": "ddp"}, {"n_gpus": 2, "sharding": "fsdp2"})
    )
    assert replica == one
    assert shard.high_share > one.high_share


@given(
    st.sampled_from([ESTIMATE, TRACE]), st.sampled_from(["lora", "qlora", "dora", "full"]), st.booleans(), st.sampled_from(["hf", "plain"])
)
def test_the_estimate_lies_inside(tier, method, checkpointing, stack):
    quantization = {"quantization": "nf4"} if method == "qlora" else {}
    found = interval_of(tier, LLAMA, Plan(method=method, gradient_checkpointing=checkpointing, stack=stack, **quantization), None)
    assert 0 <= found.low_share <= 1
    assert found.high_share >= 0


def test_every_facet_is_a_word_or_nothing():
    assert set(BOUNDARIES) < set(Kind._fields)
    for name in (ESTIMATE, TRACE, REPLAY):
        kinds = {entry.kind for entry in pools.errors_of(name)}
        assert kinds
        assert all(isinstance(value, str) for kind in kinds for value in kind)


@given(st.integers(5, 200))
def test_where_all_of_the_interval_is_above_the_card_the_answer_is_no(usable_gib):
    """And what may or may not fit has the card inside its interval."""
    card = load_gpu("H100").model_copy(update={"usable_bytes": usable_gib * GIB})
    memory = estimate_memory(LLAMA, Plan(micro_batch_size=4), card)
    fit = classify(memory, card.usable_bytes)
    assert (fit is Fit.DOES_NOT_FIT) == (memory.low_bytes > card.usable_bytes)
    assert (fit is Fit.UNCERTAIN) == (memory.low_bytes <= card.usable_bytes < memory.high_bytes)


def test_a_card_that_is_short_of_memory_gets_idle_segments_back():
    """Before the allocator fails, it gives them to the driver and tries again: the least it may run in is what is live."""
    roomy = estimate_memory(LLAMA, Plan(micro_batch_size=4), load_gpu("H100"))
    short = estimate_memory(LLAMA, Plan(micro_batch_size=4), load_gpu("H100").model_copy(update={"usable_bytes": roomy.expected_bytes}))
    margin_bytes = roomy.interval.context_bytes
    assert short.low_bytes <= roomy.low_bytes
    assert short.low_bytes <= short.expected_bytes - short.reserved_slack_bytes - margin_bytes
