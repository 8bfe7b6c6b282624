"""Rates of published runs: what cards send one another, laws of time, and how far the rates hold on runs that they were not read off."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings, strategies as st

from advisor import profiles
from advisor.accuracy import TimeCoverage
from advisor.accuracy.times import SOURCES, method_pairs, time_coverages, timed_runs
from advisor.devices import load_gpu
from advisor.devices.cards import all_cards
from advisor.errors import InvalidInputError
from advisor.hub import load_model
from advisor.ladder.request import check_request, request_from
from advisor.profiles.rates import CardRates, LeftOut
from advisor.speed import step_time
from advisor.speed.card import shares_of
from advisor.speed.exchange import Exchange, Link, exchange_of, fast_link, slow_link, step_s
from advisor.values import GpuSpec, Method, Plan, Sharding
from benchmarks.fit_rates import Case, Fit, cases, computed_s, fitted

LLAMA = load_model("meta-llama/Llama-3.1-8B")
QWEN = load_model("Qwen/Qwen2.5-0.5B")
A100, RTX_4090 = load_gpu("A100 SXM4 80GB"), load_gpu("GeForce RTX 4090")
PARAMS = 8_030_261_248
"""Of Llama-3.1-8B, as its model card counts them."""
ADAPTER = 41_943_040
"""r = 16 on all linears: 16 x (in + out) over 32 layers, in fp32 beside a 16-bit base."""


# ---- what is sent, by hand ----
# Of n cards, gather and scatter send (n-1)/n of what is gathered, an all-reduce twice that.


@pytest.mark.parametrize(
    ("settings_", "beside_bytes", "after_bytes"),
    [
        ({}, 0, 0),
        ({"method": "full", "n_gpus": 4, "sharding": "ddp"}, 2 * 2 * PARAMS * 3 / 4, 0),
        ({"method": "full", "n_gpus": 4, "sharding": "ddp", "grad_accum_steps": 8}, 2 * 2 * PARAMS * 3 / 4, 0),  # no_sync till the last
        ({"n_gpus": 2, "sharding": "ddp"}, 2 * 4 * ADAPTER / 2, 0),
        ({"method": "full", "n_gpus": 8, "sharding": "fsdp2"}, (2 + 1) * 2 * PARAMS * 7 / 8, 0),  # forward, backward, gradients
        ({"method": "full", "n_gpus": 8, "sharding": "fsdp2", "grad_accum_steps": 4}, (4 * 2 + 1) * 2 * PARAMS * 7 / 8, 0),
        ({"method": "full", "n_gpus": 8, "sharding": "zero3", "grad_accum_steps": 4}, (4 * 2 + 4) * 2 * PARAMS * 7 / 8, 0),
        ({"n_gpus": 2, "sharding": "fsdp1", "use_reentrant": True}, 3 * 2 * PARAMS / 2 + 4 * ADAPTER / 2, 0),  # and recomputation
        ({"method": "full", "n_gpus": 4, "sharding": "zero1", "grad_accum_steps": 4}, 2 * PARAMS * 3 / 4, 2 * PARAMS * 3 / 4),
        ({"method": "full", "n_gpus": 4, "sharding": "zero2", "grad_accum_steps": 4}, 4 * 2 * PARAMS * 3 / 4, 2 * PARAMS * 3 / 4),
    ],
)
def test_bytes_of_each_engine(settings_: dict[str, object], beside_bytes: float, after_bytes: float) -> None:
    exchange = exchange_of(LLAMA, Plan.model_validate(settings_))
    assert exchange.beside_bytes == pytest.approx(beside_bytes)
    assert exchange.after_bytes == pytest.approx(after_bytes)


def test_quantised_weights_are_gathered_packed() -> None:
    """6,979,321,856 weights of the blocks at half a byte, twice."""
    plan = {"n_gpus": 2, "sharding": "fsdp2"}
    packed = exchange_of(LLAMA, Plan.model_validate({**plan, "method": "qlora", "quantization": "nf4"}))
    plain = exchange_of(LLAMA, Plan.model_validate(plan))
    assert plain.beside_bytes - packed.beside_bytes == pytest.approx(2 * 6_979_321_856 * 1.5 / 2)


@pytest.mark.parametrize(
    ("compute_s", "exchange", "link", "seconds"),
    [
        (10, Exchange(0, 0), None, 10),
        (10, Exchange(4, 0), Link(1, 0.0), 10),  # hidden whole
        (10, Exchange(40, 0), Link(1, 0.0), 40),  # the link is the slower
        (10, Exchange(4, 0), Link(1, 0.5), 12),
        (10, Exchange(4, 3), Link(1, 0.5), 15),  # and what follows the step
    ],
)
def test_compute_and_exchange_together(compute_s: float, exchange: Exchange, link: Link | None, seconds: float) -> None:
    assert step_s(compute_s, exchange, link) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("card", "link", "gb_per_s"),
    [
        ("A100 SXM4 80GB", "fabric", 300),
        ("A100 PCIe 80GB", "pcie", 31.5),  # its NVLink is a bridge of two, sold apart
        ("GeForce RTX 3090", "pcie", 31.5),
        ("H100 SXM5 80GB", "fabric", 450),
        ("Instinct MI300X", "fabric", 448),  # xGMI
    ],
)
def test_links_of_cards(card: str, link: str, gb_per_s: float) -> None:
    gpu = load_gpu(card)
    assert (gpu.link, gpu.link_bytes_per_s) == (link, gb_per_s * 10**9)


def test_many_cards_send_through_a_network() -> None:
    """Eight H100 share NVLink; sixteen are two machines, whose 1,600 Gb/s each the rings divide among them."""
    h100, plan = load_gpu("H100 SXM5 80GB"), Plan(method=Method.FULL, sharding=Sharding.FSDP2, n_gpus=8)
    sixteen = plan.model_copy(update={"n_gpus": 16})
    assert fast_link(h100, plan).bytes_per_s > 0.8 * 450e9 > 200e9 >= fast_link(h100, sixteen).bytes_per_s
    assert slow_link(h100, sixteen).bytes_per_s < fast_link(h100, sixteen).bytes_per_s


# ---- laws ----

PLANS = st.builds(
    Plan,
    method=st.sampled_from((Method.LORA, Method.FULL)),
    micro_batch_size=st.integers(1, 8),
    seq_len_tokens=st.integers(64, 8192),
    grad_accum_steps=st.integers(1, 4),
    gradient_checkpointing=st.booleans(),
    loss=st.sampled_from(("full", "fused")),
)
MODELS = st.sampled_from((LLAMA, QWEN))
SHARDED = st.sampled_from((Sharding.DDP, Sharding.FSDP1, Sharding.FSDP2, Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3))


def seconds(model: object, plan: Plan, gpu: GpuSpec) -> tuple[float, float]:
    time = step_time(model, plan, gpu)
    assert time is not None
    return time.seconds_per_step.low, time.seconds_per_step.high


@settings(max_examples=60, deadline=None)
@given(MODELS, PLANS, st.sampled_from((A100, RTX_4090)), st.floats(1, 4), st.floats(1, 4))
def test_a_faster_card_is_never_slower(model, plan, gpu, compute, memory) -> None:
    faster = gpu.model_copy(
        update={"bf16_flop_per_s": gpu.bf16_flop_per_s * compute, "bandwidth_bytes_per_s": gpu.bandwidth_bytes_per_s * memory}
    )
    for slow_s, fast_s in zip(seconds(model, plan, gpu), seconds(model, plan, faster), strict=True):
        assert fast_s <= slow_s * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(MODELS, PLANS, SHARDED, st.integers(2, 8), st.integers(1, 8))
def test_more_cards_take_no_longer_over_ideal_links(model, plan, sharding, n_gpus, more) -> None:
    """A step of as many tokens a card."""
    ideal = A100.model_copy(update={"link_bytes_per_s": 10**18, "gpus_of_machine": 1024})
    few, many = (plan.model_copy(update={"sharding": sharding, "n_gpus": count}) for count in (n_gpus, n_gpus + more))
    for few_s, many_s in zip(seconds(model, few, ideal), seconds(model, many, ideal), strict=True):
        assert many_s <= few_s * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(MODELS, PLANS, SHARDED, st.integers(2, 64), st.floats(1, 100))
def test_a_slower_link_is_never_quicker(model, plan, sharding, n_gpus, slower) -> None:
    sharded = plan.model_copy(update={"sharding": sharding, "n_gpus": n_gpus})
    worse = A100.model_copy(update={"link_bytes_per_s": int(A100.link_bytes_per_s / slower)})
    for fast_s, slow_s in zip(seconds(model, sharded, A100), seconds(model, sharded, worse), strict=True):
        assert slow_s >= fast_s * (1 - 1e-9)


# ---- the rows ----


def test_families_are_of_known_cards_each_in_one() -> None:
    families = Counter(name for row in profiles.rows("rates/cards", CardRates) for name in row.cards)
    assert set(families) <= {card.name for card in all_cards()}
    assert max(families.values()) == 1
    assert [row.begins for row in profiles.rows("rates/cards", CardRates) if not row.cards] == ["GeForce ", ""]


def test_rates_rest_on_runs_of_their_own_cards() -> None:
    groups = {(group, row.family) for row in profiles.rows("rates/cards", CardRates) if row.cards for group in row.groups}
    cards = {name: row.family for row in profiles.rows("rates/cards", CardRates) for name in row.cards}
    assert groups <= {(timed.of.group, cards[timed.of.card]) for timed in timed_runs() if not timed.of.apart}


def test_a_card_that_nobody_timed_is_told_so_and_gets_a_wider_range() -> None:
    unknown = A100.model_copy(update={"name": "a card that nobody timed"})
    known_time, unknown_time = step_time(LLAMA, Plan(), A100), step_time(LLAMA, Plan(), unknown)
    assert known_time is not None
    assert unknown_time is not None
    assert "no run of this card is known" in unknown_time.seconds_per_step.source
    assert "fms-acceleration" in known_time.seconds_per_step.source
    known, wide = known_time.seconds_per_step, unknown_time.seconds_per_step
    assert wide.high / wide.low > 1.3 * known.high / known.low


@pytest.mark.parametrize(
    ("card", "products", "attention", "where"),
    [
        # A tuned product reaches 80-90 % of an A100's peak, the kernel up to 73 % (arXiv:2307.08691, sections 1 and 4.1).
        ("A100 SXM4 80GB", (0.6, 0.9), (0.4, 0.73), "FlashAttention-2"),
        # On H100 FlashAttention-2 reaches 35-40 % (FlashAttention-3, arXiv:2407.08608, section 1).
        ("H100 SXM5 80GB", (0.4, 0.75), (0.25, 0.45), "FlashAttention-3"),
    ],
)
def test_shares_are_as_papers_have_them(card: str, products: tuple[float, float], attention: tuple[float, float], where: str) -> None:
    shares = shares_of(card)
    assert products[0] <= shares.products <= products[1], where
    assert attention[0] <= shares.attention <= attention[1], where


# ---- how far they hold ----


@cache
def coverages() -> dict[str, TimeCoverage]:
    return {row.what: row for row in time_coverages()}


def test_left_out_runs_are_timed_runs() -> None:
    measured = {timed.run.id: timed.seconds for timed in timed_runs() if not timed.of.apart}
    rows = profiles.rows("rates/left_out", LeftOut)
    assert {row.id for row in rows} == set(measured)
    for row in rows:
        assert row.measured_s == pytest.approx(measured[row.id], rel=1e-3)
        assert row.low_s <= row.expected_s <= row.high_s


@pytest.mark.parametrize(("sources", "width"), [("several", 1.6), ("one or none", 2.5)])
def test_nine_of_ten_runs_left_out_lie_inside(sources: str, width: float) -> None:
    row = coverages()[SOURCES[sources]]
    assert row.inside >= 0.9
    assert row.median_width <= width


def test_full_over_lora_is_as_measured_and_never_below_one() -> None:
    pairs = [pair for pair in method_pairs() if pair.slow.plan.method is Method.FULL]
    assert len(pairs) >= 20
    row = coverages()["Full over LoRA, the same run otherwise"]
    assert row.median_error <= 0.10
    assert row.on_the_wrong_side == 0


# ---- hours and price ----


def test_epochs_and_a_price_of_ones_own() -> None:
    once, twice = (step_time(LLAMA, Plan(n_gpus=2, sharding=Sharding.DDP), A100, 10**7, epochs=epochs) for epochs in (1, 2.5))
    assert once is not None
    assert twice is not None
    assert twice.hours.low == pytest.approx(2.5 * once.hours.low)
    assert twice.hours.source == "2.5 passes over 10,000,000 tokens"
    own = step_time(LLAMA, Plan(n_gpus=2, sharding=Sharding.DDP), A100, 10**7, usd_per_gpu_hour=1.5)
    assert own is not None
    assert (own.usd.low, own.usd.high) == pytest.approx((once.hours.low * 2 * 1.5, once.hours.high * 2 * 1.5))


@pytest.mark.parametrize("options", [{"epochs": 3}, {"price": 2.0}], ids=["epochs", "price"])
def test_a_run_without_its_tokens_has_no_hours(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match="--dataset-tokens"):
        check_request(request_from(options))


# ---- the fit ----


def test_the_fit_finds_the_rates_that_made_the_times() -> None:
    """Runs whose times are made up at known shares, one of them ten times too slow."""
    runs = [case for case in cases() if case.timed.of.source.endswith("llm-foundry") and case.family == "A100" and not case.held_up][::4]
    made = Fit(runs)
    made.families["A100"], made.kernels["older"] = [0.5, 0.3, 0.9], [1.0, 1.0]
    seconds_of = [computed_s(case, made, 0.006) for case in runs]
    seconds_of[0] *= 10
    found = fitted([_timed_at(case, seconds_) for case, seconds_ in zip(runs, seconds_of, strict=True)])
    for case, seconds_ in [*zip(runs, seconds_of, strict=True)][1:]:
        assert computed_s(case, found, 0.006) == pytest.approx(seconds_, rel=0.05)


def _timed_at(case: Case, seconds_: float) -> Case:
    plan = case.timed.plan
    run = case.timed.run.model_copy(update={"tokens_per_s_per_gpu": plan.tokens_per_step / plan.n_gpus / seconds_})
    return case._replace(timed=case.timed._replace(run=run), held_up=False)
