"""Rules on either side of where they begin to speak: made-up rungs in round numbers.

The bounds are those that profiles/methods/thresholds.json states.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from samples import price_by

from advisor import profiles
from advisor.devices import load_gpu
from advisor.hub import load_model
from advisor.ladder import flips, rules_capacity, rules_memory, rules_method, rules_setup
from advisor.ladder.fit import Case
from advisor.ladder.learning_rate import prior_by_size
from advisor.ladder.rules import Rule
from advisor.ladder.rules_capacity import rank_sized
from advisor.ladder.situation import Situation
from advisor.ladder.verdict import why_not
from advisor.units import GIB
from advisor.values import (
    Finding,
    Fit,
    GpuSpec,
    Interval,
    Level,
    MemoryBreakdown,
    Method,
    ModelSpec,
    Phase,
    PhaseBytes,
    Plan,
    Request,
    Rung,
    Task,
    Term,
    TermBytes,
    Verdict,
)

LLAMA_8B, LLAMA_2_7B, MIXTRAL = load_model("llama-3-8b"), load_model("llama-2-7b"), load_model("mixtral-8x7b")
PER_RANK = 2_621_440
"""LoRA parameters of Llama-3-8B per rank, all linear layers (fact T7)."""
PLANS: dict[Method, dict[str, Any]] = {
    Method.LORA: {},
    Method.QLORA: {"quantization": "nf4"},
    Method.DORA: {},
    Method.FULL: {},
}


def card(usable_bytes: int = 100 * GIB, **options: Any) -> GpuSpec:
    return GpuSpec(name="card", vendor="NVIDIA", usable_bytes=usable_bytes, usable_source="test", **options)


def taken(size_bytes: int, low_share: float = 0.0, high_share: float = 0.0) -> MemoryBreakdown:
    phase = PhaseBytes(phase=Phase.BACKWARD, terms=(TermBytes(term=Term.ACTIVATIONS, bytes=size_bytes),))
    interval = Interval(low_share=low_share, high_share=high_share, source="made up")
    return MemoryBreakdown(source="estimate", phases=(phase,), reserved_slack_bytes=0, context_bytes=0, interval=interval)


T4 = card(compute_capability="7.5")


class Made(NamedTuple):
    """A rung in the few words that a rule asks for."""

    method: Method = Method.LORA
    taken_bytes: int = 20 * GIB
    plan: dict[str, Any] = {}
    fit: Fit = Fit.FITS
    memory: MemoryBreakdown | None = None
    options: dict[str, Any] = {}

    def rung(self) -> Rung:
        plan = Plan(method=self.method, base_dtype="bf16", **{**PLANS[self.method], "seq_len_tokens": 2048, **self.plan})
        return Rung(
            plan=plan,
            memory=self.memory or taken(self.taken_bytes),
            fit=self.fit,
            headroom_bytes=0,
            base_precision="",
            relative_step_time=None,
            quality="",
            mergeable="",
            **{"trainable_params": 1, "trainable_share": 0.5, **self.options},
        )


def situation(
    *made: Made,
    model: ModelSpec = LLAMA_8B,
    gpu: GpuSpec | None = None,
    binding: str = "none",
    chosen: Method | None = Method.LORA,
    **asked: Any,
) -> Situation:
    """These rungs, and plain ones of the other methods, were priced."""
    named = {one.method: one.rung() for one in made}
    rungs = tuple(named.get(method) or Made(method).rung() for method in (Method.LORA, Method.QLORA, Method.DORA, Method.FULL))
    verdict = Verdict(method=chosen, binding=binding, sentence="")
    return Situation(Case(model, gpu or card()), Request(**asked), rungs, verdict)


def said(rule: Rule, *made: Made, **options: Any) -> list[Finding]:
    """What a rule notices there."""
    return list(rule(situation(*made, **options)))


def ids(*given: Any, **options: Any) -> list[str]:
    return [finding.id for finding in said(*given, **options)]


# ----------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(("spare_bytes", "noticed"), [(5 * GIB, []), (5 * GIB - 1, ["fits-tightly"]), (-1, ["fits-tightly"])])
def test_tight_begins_below_a_twentieth_of_the_card(spare_bytes: int, noticed: list[str]) -> None:
    assert ids(rules_memory.fits_tightly, Made(taken_bytes=100 * GIB - spare_bytes)) == noticed
    assert ids(rules_memory.fits_tightly, Made(taken_bytes=100 * GIB - spare_bytes, fit=Fit.UNCERTAIN)) == []
    for finding in said(rules_memory.fits_tightly, Made(taken_bytes=100 * GIB - spare_bytes)):
        assert finding.numbers == {"spare_bytes": spare_bytes, "usable_bytes": 100 * GIB}


@pytest.mark.parametrize(("low_share", "noticed"), [(0.25, ["interval-wide"]), (0.125, [])])
def test_an_interval_is_wide_from_a_quarter_more(low_share: float, noticed: list[str]) -> None:
    assert ids(rules_memory.interval_wide, Made(memory=taken(64 * GIB, low_share))) == noticed


def test_an_interval_of_exactly_a_quarter_more_is_wide() -> None:
    assert ids(rules_memory.interval_wide, Made(memory=taken(64 * GIB, 0.0, 0.25))) == ["interval-wide"]
    assert ids(rules_memory.interval_wide, Made(memory=taken(64 * GIB, 0.0, 0.25 - 1e-9))) == []


def test_a_longest_sequence_is_told_where_one_is_known() -> None:
    unsure = Made(fit=Fit.UNCERTAIN)
    (told,) = said(rules_memory.fit_uncertain, unsure._replace(options={"max_seq_len_tokens": 1024}))
    assert told.hint.startswith("up to 1,024 tokens")
    (told,) = said(rules_memory.fit_uncertain, unsure)
    assert told.hint.startswith("run one step")
    assert told.numbers == {"low_bytes": 20 * GIB, "high_bytes": 20 * GIB, "usable_bytes": 100 * GIB}


@pytest.mark.parametrize(
    ("rank", "missing_gib", "noticed", "lower"),
    [
        (32, 24, ["rank-heavy"], 8),  # rank 8 in place of 32 saves 24 GiB at a GiB each
        (32, 25, ["rank-no-cure"], 8),
        (16, 8, ["rank-heavy"], 8),
        (8, 4, ["rank-heavy"], 4),
        (2, 2, ["rank-no-cure"], 1),
        (1, 1, [], 0),
    ],
)
def test_what_a_lower_rank_saves_is_held_against_what_is_missing(
    rank: int, missing_gib: int, noticed: list[str], lower: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    price_by(monkeypatch, lambda model, plan, gpu: taken((100 + missing_gib - rank + plan.rank) * GIB))
    made = Made(taken_bytes=(100 + missing_gib) * GIB, plan={"rank": rank, "alpha": rank}, fit=Fit.DOES_NOT_FIT)
    found = said(rules_memory.rank_no_cure, made, binding="memory", chosen=None)
    assert [finding.id for finding in found] == noticed
    for finding in found:
        saved, missing = (rank - lower) * GIB, missing_gib * GIB
        assert finding.numbers == {"rank": rank, "lower_rank": lower, "saved_bytes": saved, "missing_bytes": missing}
    assert ids(rules_memory.rank_no_cure, made, binding="none", chosen=None) == []


@pytest.mark.parametrize(
    ("extra_bytes", "level"), [(5 * GIB, Level.WARNING), (5 * GIB - 1, Level.INFO), (1, Level.INFO), (0, None), (-1, None)]
)
def test_lifting_to_fp32_weighs_from_a_twentieth_of_the_card(
    extra_bytes: int, level: Level | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    price_by(monkeypatch, lambda model, plan, gpu: taken(20 * GIB - (0 if plan.kbit_prepare else extra_bytes)))
    made = Made(Method.QLORA, plan={"kbit_prepare": True})
    found = said(rules_memory.kbit_upcast, made, chosen=Method.QLORA)
    assert [(finding.level, finding.numbers) for finding in found] == ([(level, {"extra_bytes": extra_bytes})] if level else [])
    assert ids(rules_memory.kbit_upcast, Made(Method.QLORA), chosen=Method.QLORA) == []


@pytest.mark.parametrize(
    ("capability", "model", "method", "plan", "noticed"),
    [
        ("7.5", LLAMA_8B, Method.LORA, {}, True),
        ("8.0", LLAMA_8B, Method.LORA, {}, False),
        ("7.5", LLAMA_2_7B, Method.LORA, {}, False),  # as many keys as queries
        ("7.5", LLAMA_8B, Method.LORA, {"attention": "flash"}, False),
        ("9.0", LLAMA_8B, Method.QLORA, {"kbit_prepare": True}, True),
        ("9.0", LLAMA_8B, Method.QLORA, {"kbit_prepare": False}, False),
        ("9.0", LLAMA_8B, Method.QLORA, {"kbit_prepare": True, "autocast": True}, False),
    ],
)
def test_attention_falls_to_the_math_kernel(capability: str, model: ModelSpec, method: Method, plan: dict[str, Any], noticed: bool) -> None:
    shape = {"micro_batch_size": 3, "seq_len_tokens": 1000, "attention": "sdpa"}
    found = said(
        rules_memory.attention_by_math,
        Made(method, plan={**shape, **plan}),
        model=model,
        gpu=card(compute_capability=capability),
        chosen=method,
    )
    # by hand: 3 sequences, 32 heads, 1,000 by 1,000 scores of 4 bytes
    assert [finding.numbers for finding in found] == ([{"score_matrix_bytes": 3 * 32 * 1000 * 1000 * 4}] if noticed else [])


@pytest.mark.parametrize("order", [1, -1])
def test_layers_whose_heads_are_grouped_may_stand_anywhere(order: int) -> None:
    grouped, plain = LLAMA_8B.shape.blocks[0], LLAMA_2_7B.shape.blocks[0]
    shape = LLAMA_8B.shape.model_copy(update={"blocks": (grouped, plain)[::order]})
    found = ids(
        rules_memory.attention_by_math, Made(plan={"attention": "sdpa"}), model=LLAMA_8B.model_copy(update={"tables": shape}), gpu=T4
    )
    assert found == ["math-attention"]


@pytest.mark.parametrize(
    ("qlora_bytes", "plan", "noticed"),
    [
        (90 * GIB, {}, False),  # a tenth saved
        (90 * GIB + 1, {}, True),
        (110 * GIB, {}, True),
        (100 * GIB, {"seq_len_tokens": 1024}, False),
        (100 * GIB, {"micro_batch_size": 2}, False),
        (100 * GIB, {"gradient_checkpointing": False}, False),
    ],
)
def test_quantising_saves_less_than_a_tenth_of_the_same_step(qlora_bytes: int, plan: dict[str, Any], noticed: bool) -> None:
    step = {"seq_len_tokens": 2048, "micro_batch_size": 1, "gradient_checkpointing": True}
    lora = Made(taken_bytes=100 * GIB, plan=step)
    found = said(rules_memory.quantized_not_smaller, lora, Made(Method.QLORA, qlora_bytes, {**step, **plan}))
    assert [finding.numbers for finding in found] == ([{"lora_bytes": 100 * GIB, "qlora_bytes": qlora_bytes}] if noticed else [])
    for finding in found:
        assert "saves -" not in finding.message


@pytest.mark.parametrize(
    ("method", "plan", "level"),
    [
        (Method.LORA, {}, Level.INFO),
        (Method.QLORA, {}, Level.WARNING),
        (Method.QLORA, {"quantized_experts": True}, None),
        (Method.FULL, {}, None),
    ],
)
def test_experts_that_are_no_modules_are_counted(method: Method, plan: dict[str, Any], level: Level | None) -> None:
    """Mixtral's config.json: 32 layers of 8 experts with three matrices of 4,096 by 14,336, and a router that is no module either."""
    params = 32 * (8 * 3 * 4096 * 14336 + 8 * 4096)
    found = said(rules_memory.experts_in_16_bit, Made(method, plan=plan), model=MIXTRAL, chosen=method)
    expected = {"bare_params": params, "bare_bytes": 2 * params}
    assert [(finding.level, finding.numbers) for finding in found] == ([(level, expected)] if level else [])
    for finding in found:
        assert ("stay in 16 bit (84.0 GiB) and " in finding.message) is (method is Method.QLORA)  # 45,098,205,184 parameters of 2 bytes


def test_full_fine_tuning_s_states_are_told_where_it_does_not_fit() -> None:
    """Fact F1: 16 bytes a parameter with fp32 weights, half of it in 16 bit. Llama-3-8B has 8,030,261,248."""
    (told,) = said(rules_memory.full_on_one_card, Made(Method.FULL, fit=Fit.DOES_NOT_FIT))
    assert told.numbers == {"pure_16bit_bytes": 8 * 8_030_261_248, "fp32_master_bytes": 16 * 8_030_261_248}
    assert ids(rules_memory.full_on_one_card, Made(Method.FULL, fit=Fit.UNCERTAIN)) == []


@pytest.mark.parametrize(("cards", "sharding", "divided"), [(1, "none", 1), (4, "fsdp2", 4), (4, "ddp", 1)])
def test_what_keeps_rounding_is_shared_as_the_weights_are(cards: int, sharding: str, divided: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes for each of the 8,030,261,248 parameters, on the card that has the parameter."""
    price_by(monkeypatch, lambda model, plan, gpu: taken(50 * GIB))
    full = Made(Method.FULL, 20 * GIB, {"n_gpus": cards, "sharding": sharding})
    (told,) = said(rules_memory.full_in_pure_16_bit, full)
    assert told.numbers == {"kahan_bytes": 20 * GIB + 2 * 8_030_261_248 // divided, "fp32_weights_bytes": 50 * GIB}


@pytest.mark.parametrize(
    ("fit_of_it", "method", "chosen", "level"),
    [
        (Fit.FITS, None, Method.LORA, Level.INFO),
        (Fit.FITS, Method.FULL, Method.FULL, Level.WARNING),
        (Fit.UNCERTAIN, None, Method.LORA, None),
        (Fit.DOES_NOT_FIT, Method.FULL, None, Level.WARNING),
    ],
)
def test_pure_16_bit_is_spoken_of_where_it_fits_or_was_asked_for(
    fit_of_it: Fit, method: Method | None, chosen: Method | None, level: Level | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    price_by(monkeypatch, lambda model, plan, gpu: taken(50 * GIB))
    found = said(rules_memory.full_in_pure_16_bit, Made(Method.FULL, fit=fit_of_it), chosen=chosen, method=method)
    assert [finding.level for finding in found] == ([level] if level else [])


@pytest.mark.parametrize(
    ("micro_batch", "accumulated", "room", "told"),
    [
        (2, 4, 4, (4, 2)),  # twice as much fits: 8 sequences in two passes
        (2, 4, 3, None),
        (2, 3, 5, (3, 2)),  # the largest divisor of 6 up to 5
        (2, 4, 100, (8, 1)),
        (3, 3, 8, None),  # 9 sequences: no divisor between 3 and 8
        (3, 3, 9, (9, 1)),
        (2, 1, 100, None),
        (2, 4, None, None),
    ],
)
def test_room_for_larger_micro_batches_of_the_same_step(
    micro_batch: int, accumulated: int, room: int | None, told: tuple[int, int] | None
) -> None:
    plan = {"micro_batch_size": micro_batch, "grad_accum_steps": accumulated}
    made = Made(plan=plan, options={"max_micro_batch_size": room})
    hints = [finding.hint for finding in said(rules_memory.batch_room, made)]
    assert hints == ([f"--batch-size {told[0]} --grad-accum {told[1]}"] if told else [])
    for finding in said(rules_memory.batch_room, made):
        assert told is not None
        assert finding.numbers == {"max_micro_batch_size": room, "micro_batch_size": told[0], "grad_accum_steps": told[1]}
    assert ids(rules_memory.batch_room, made._replace(fit=Fit.UNCERTAIN)) == []


# ----------------------------------------------------------------------------------------------------------------- method


def of_params(params: int) -> ModelSpec:
    """A model of which no more is known than how many parameters it has."""
    return LLAMA_8B.model_copy(update={"tables": None, "params_built": params})


@pytest.mark.parametrize(
    ("params", "task", "level"),
    [
        (9 * 10**9 - 1, None, Level.INFO),
        (9 * 10**9 - 1, Task.MATH, Level.WARNING),
        (9 * 10**9 - 1, Task.CODE, Level.WARNING),
        (9 * 10**9 - 1, Task.CHAT, None),
        (9 * 10**9, None, None),
    ],
)
def test_small_models_lose_arithmetic_in_4_bit(params: int, task: Task | None, level: Level | None) -> None:
    found = said(rules_method.quantized_arithmetic, model=of_params(params), chosen=Method.QLORA, task=task)
    assert [finding.level for finding in found] == ([level] if level else [])
    assert ids(rules_method.quantized_arithmetic, model=of_params(params), chosen=Method.LORA, task=task) == []


@pytest.mark.parametrize(("usable_gib", "level"), [(30, Level.INFO), (30 - 1 / GIB, Level.WARNING)])
def test_a_16_bit_copy_to_merge_into_goes_beside_the_loaded_base(usable_gib: float, level: Level) -> None:
    """Two bytes a parameter: 5 Gi of them take 10 GiB beside the 20 that were loaded."""
    found = said(rules_method.quantized_merge, model=of_params(5 * GIB), gpu=card(round(usable_gib * GIB)), chosen=Method.QLORA)
    assert [(finding.level, finding.numbers) for finding in found] == [(level, {"merged_bytes": 10 * GIB})]


@pytest.mark.parametrize(
    ("rule", "method"),
    [
        (rules_method.quantized_price, Method.QLORA),
        (rules_method.quantized_arithmetic, Method.QLORA),
        (rules_method.dora_before_evidence, Method.DORA),
        (rules_method.dora_dropout, Method.DORA),
        (rules_method.dora_serving, Method.DORA),
        (rules_setup.targets_without_mlp, Method.LORA),
        (rules_capacity.reinforcement_learning, Method.LORA),
    ],
)
def test_published_numbers_stand_in_the_facts_that_are_cited(rule: Rule, method: Method) -> None:
    """profiles/methods/facts.json quotes each source; thresholds.json what a rule draws from them."""
    facts = {row["id"]: row for row in profiles.read("methods/facts")}
    options: dict[str, Any] = {"target_modules": ("q_proj", "v_proj")} if rule is rules_setup.targets_without_mlp else {}
    task = Task.RL if rule is rules_capacity.reinforcement_learning else None
    made = Made(method, plan=options)
    (told,) = said(rule, made, chosen=method, method=method, task=task, **options)
    quoted = " ".join(" ".join(map(str, facts[name].values())) for name in told.evidence)
    quoted += " ".join(str(row["value"]) for row in profiles.read("methods/thresholds"))
    for name, number in told.numbers.items():
        assert f"{number:g}" in quoted.replace("1e-4", ""), name


@pytest.mark.parametrize(
    ("asked", "lora", "noticed"),
    [
        (Method.QLORA, Fit.FITS, True),
        (Method.QLORA, Fit.UNCERTAIN, False),
        (Method.LORA, Fit.FITS, False),
        (None, Fit.FITS, False),
    ],
)
def test_4_bit_is_needless_where_16_fit(asked: Method | None, lora: Fit, noticed: bool) -> None:
    found = said(rules_method.quantized_needlessly, Made(taken_bytes=7 * GIB, fit=lora), method=asked)
    assert [finding.numbers for finding in found] == ([{"lora_bytes": 7 * GIB}] if noticed else [])


# -------------------------------------------------------------------------------------------------------- rank and capacity


@pytest.mark.parametrize(
    ("tokens", "noticed"),
    [
        (16 * PER_RANK // 4, "capacity-ample"),  # 4 parameters per token at rank 16
        (16 * PER_RANK // 4 + 1, "capacity-test"),
        (16 * PER_RANK, "capacity-test"),  # 1
        (16 * PER_RANK + 1, "capacity-suspect"),
        (256 * PER_RANK, "capacity-suspect"),  # 1 at rank 256
        (256 * PER_RANK + 1, "capacity-cpt"),
        (2560 * PER_RANK, "capacity-cpt"),  # 0.1 at rank 256
        (2560 * PER_RANK + 1, "capacity-deep-cpt"),
    ],
)
def test_parameters_per_token_on_either_side_of_each_bound(tokens: int, noticed: str) -> None:
    (told,) = said(rules_capacity.capacity_ratio, Made(plan={"rank": 16}), dataset_tokens=tokens)
    assert told.id == noticed
    assert told.numbers["rho_at_256"] == pytest.approx(256 * PER_RANK / tokens)
    assert ids(rules_capacity.capacity_ratio, Made(plan={"rank": 16}), dataset_tokens=tokens, task=Task.RL) == []


@pytest.mark.parametrize(
    ("tokens", "task", "rank"),
    [(16 * PER_RANK, None, 16), (17 * PER_RANK, None, 32), (16 * PER_RANK, Task.MATH, 32), (17 * PER_RANK, Task.CODE, 64), (1, None, 8)],
)
def test_the_rank_is_the_power_of_two_that_reaches_the_ratio(tokens: int, task: Task | None, rank: int) -> None:
    assert rank_sized(tokens, PER_RANK, task) == rank


@pytest.mark.parametrize(
    ("rank", "tokens", "noticed"),
    [
        (63, None, False),
        (64, None, True),
        (64, 64 * PER_RANK, False),  # as many as the data ask for
        (64, 32 * PER_RANK, True),
    ],
)
def test_a_rank_is_high_from_64_unless_the_data_ask_for_it(rank: int, tokens: int | None, noticed: bool) -> None:
    made = Made(plan={"rank": rank, "alpha": rank})
    found = said(rules_capacity.rank_high, made, dataset_tokens=tokens)
    assert [finding.numbers for finding in found] == ([{"rank": rank, "adapter_params": 1}] if noticed else [])
    uncounted = made._replace(options={"trainable_params": None})
    found = said(rules_capacity.rank_high, uncounted, dataset_tokens=tokens)
    assert [finding.numbers for finding in found] == ([{"rank": rank}] if noticed else [])
    assert ids(rules_capacity.rank_high, made, chosen=Method.FULL, dataset_tokens=tokens) == []


@pytest.mark.parametrize(("alpha", "noticed"), [(32, False), (31, True)])
def test_alpha_is_small_below_half_of_the_rank(alpha: float, noticed: bool) -> None:
    found = said(rules_capacity.alpha_small, Made(plan={"rank": 64, "alpha": alpha}))
    assert [finding.numbers for finding in found] == ([{"alpha": alpha, "rank": 64, "scale": alpha / 64}] if noticed else [])
    for finding in found:
        assert finding.hint.startswith("--alpha 128")  # twice the rank


# ----------------------------------------------------------------------------------------------------------------- set-up


@pytest.mark.parametrize(
    ("plan", "noticed"),
    [
        ({"micro_batch_size": 4, "grad_accum_steps": 32}, None),
        ({"micro_batch_size": 3, "grad_accum_steps": 43}, 129),
        ({"micro_batch_size": 2, "grad_accum_steps": 8, "n_gpus": 8, "sharding": "ddp"}, None),
        ({"micro_batch_size": 2, "grad_accum_steps": 9, "n_gpus": 8, "sharding": "ddp"}, 144),
    ],
)
def test_sequences_per_step_are_counted_over_all_cards(plan: dict[str, Any], noticed: int | None) -> None:
    found = said(rules_setup.batch_high, Made(plan=plan))
    assert [finding.numbers for finding in found] == ([{"sequences_per_step": noticed}] if noticed else [])


@pytest.mark.parametrize(
    ("plan", "spoken_of", "hint"),
    [
        ({}, "this plan's bf16", "--precision fp16"),
        ({"base_dtype": "fp16", "adapter_dtype": "fp32"}, "runs in fp16", "watch the loss scale"),
        ({"base_dtype": "fp16", "adapter_dtype": "bf16"}, "this plan's bf16", "watch the loss scale"),
        ({"base_dtype": "fp32", "adapter_dtype": "fp32", "autocast": True, "autocast_dtype": "bf16"}, "this plan's bf16", "watch"),
        ({"base_dtype": "fp32", "adapter_dtype": "fp32", "autocast": True, "autocast_dtype": "fp16"}, "runs in fp16", "watch"),
    ],
)
def test_a_card_without_bf16_is_told_of(plan: dict[str, Any], spoken_of: str, hint: str) -> None:
    made = Made()
    rung = made.rung()
    replaced = Plan(**{**rung.plan.model_dump(), **plan})
    situation = Situation(
        Case(LLAMA_8B, card(bf16_supported=False)),
        Request(),
        (rung.model_copy(update={"plan": replaced}),),
        Verdict(method=Method.LORA, binding="none", sentence=""),
    )
    (told,) = rules_setup.bf16_unsupported(situation)
    assert spoken_of in told.message
    assert told.hint.startswith(hint)


def test_a_card_of_the_catalogue_has_flash_from_compute_capability_8_on() -> None:
    """NVIDIA's list of compute capabilities: T4 7.5, A100 8.0."""
    plan = {"attention": "sdpa"}
    said_of = {name: ids(rules_memory.attention_by_math, Made(plan=plan), gpu=load_gpu(name)) for name in ("t4", "a100 80gb")}
    assert said_of == {"t4": ["math-attention"], "a100 80gb": []}


# ------------------------------------------------------------------------------------------------- what would change the answer

SHORT = Made(plan={"seq_len_tokens": 1024})


@pytest.mark.parametrize(
    ("lora", "options", "told"),
    [
        (SHORT, {"chosen": Method.QLORA}, True),
        (SHORT, {"chosen": Method.LORA}, False),
        (SHORT, {"chosen": Method.QLORA, "method": Method.QLORA}, False),
        (SHORT._replace(fit=Fit.UNCERTAIN), {"chosen": Method.QLORA}, False),
        (SHORT._replace(fit=Fit.DOES_NOT_FIT), {"chosen": None}, False),
    ],
)
def test_lora_on_shorter_sequences_is_told_of_where_another_was_chosen(lora: Made, options: dict[str, Any], told: bool) -> None:
    found = list(flips._shorter(situation(lora, **options)))
    assert [("1,024" in flip.sentence, flip.opens) for flip in found] == ([(True, False)] if told else [])


@pytest.mark.parametrize(
    ("rank", "method", "higher"),
    [
        (16, Method.LORA, 64),
        (64, Method.QLORA, 256),
        (100, Method.LORA, 256),  # no published comparison gains beyond (fact C12)
        (256, Method.LORA, None),
        (16, Method.FULL, None),
        (16, None, None),
    ],
)
def test_four_times_the_rank_is_the_next_door(rank: int, method: Method | None, higher: int | None) -> None:
    made = Made(method or Method.LORA, plan={"rank": rank})
    found = list(flips._evidence(situation(made, chosen=method)))
    assert [(f"{rank}" in flip.sentence, f"{higher}" in flip.sentence, flip.opens) for flip in found] == (
        [(True, True, False)] if higher else []
    )


@pytest.mark.parametrize(
    ("made", "options", "sizes", "opens"),
    [
        ((), {"chosen": None}, ["3.0"], True),  # the smallest of all
        ((Made(Method.DORA, GIB, fit=Fit.WOULD_NOT_START),), {"chosen": None}, ["3.0"], True),
        ((), {"chosen": None, "method": Method.LORA}, ["30.0"], True),
        ((), {"chosen": Method.LORA}, ["30.0", "10.0"], False),
        ((), {"chosen": Method.LORA, "method": Method.LORA}, None, False),
        ((Made(taken_bytes=30 * GIB, fit=Fit.DOES_NOT_FIT),), {"chosen": Method.QLORA}, ["30.0"], True),
        ((Made(taken_bytes=30 * GIB, fit=Fit.UNCERTAIN),), {"chosen": Method.QLORA}, ["30.0"], True),
        ((), {"chosen": Method.QLORA}, None, True),
        ((Made(fit=Fit.DOES_NOT_FIT),), {"chosen": Method.QLORA, "method": Method.QLORA}, None, True),
    ],
)
def test_the_card_that_moves_the_answer(made: tuple[Made, ...], options: dict[str, Any], sizes: list[str] | None, opens: bool) -> None:
    priced = {Method.LORA: 30, Method.QLORA: 10, Method.DORA: 31, Method.FULL: 3}
    rungs = {method: Made(method, gib * GIB) for method, gib in priced.items()} | {one.method: one for one in made}
    found = list(flips._other_card(situation(*rungs.values(), **options)))
    assert [flip.opens for flip in found] == ([opens] if sizes else [])
    for flip in found:
        assert all(f"{size} GiB" in flip.sentence for size in sizes or ())


@pytest.mark.parametrize(("cards", "words"), [(1, "a card with"), (4, "4 cards, each with")])
def test_cards_are_counted_in_words(cards: int, words: str) -> None:
    plan = {"n_gpus": cards, "sharding": "ddp" if cards > 1 else "none"}
    (flip,) = flips._other_card(situation(Made(plan=plan)))
    assert words in flip.sentence


@pytest.mark.parametrize(
    ("made", "gpu", "why"),
    [
        (Made(taken_bytes=200 * GIB, fit=Fit.DOES_NOT_FIT), card(), "needs 200.0 GiB; the card has 100.0 GiB"),
        (Made(taken_bytes=200 * GIB, fit=Fit.DOES_NOT_FIT), card(14 * GIB), "its 16-bit weights alone are 15.0 GiB; the card has 14.0 GiB"),
        (Made(Method.QLORA, 200 * GIB, fit=Fit.DOES_NOT_FIT), card(14 * GIB), "needs 200.0 GiB; the card has 14.0 GiB"),
        (Made(taken_bytes=200 * GIB, plan={"n_gpus": 2, "sharding": "fsdp2"}, fit=Fit.DOES_NOT_FIT), card(14 * GIB), "needs 200.0 GiB"),
    ],
)
def test_weights_alone_are_told_of_where_they_are_16_bit_and_larger_than_the_card(made: Made, gpu: GpuSpec, why: str) -> None:
    """Llama-3-8B has 8,030,261,248 parameters: 14.96 GiB in 16 bit, half of that on each of two cards that share them."""
    given = situation(made, gpu=gpu, chosen=None)
    assert why_not(given.case, Request(), made.rung(), given.verdict).startswith(why)


@pytest.mark.parametrize(
    ("params", "rate"), [(7_000_000_000, 2e-4), (29_999_999_999, 2e-4), (30_000_000_000, 1e-4), (65_000_000_000, 1e-4)]
)
def test_larger_models_of_no_recipe_take_half_of_the_rate(params: int, rate: float) -> None:
    """QLoRA (arXiv 2305.14314), table 9: 2e-4 up to 13B, 1e-4 at 33B and 65B; `lr_large_params` puts the bound at 30 billion."""
    assert prior_by_size(params) == rate
