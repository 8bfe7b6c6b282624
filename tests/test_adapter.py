"""The diagnosis of adapters: against peft's own merged weights and torch's singular values, on planted spectra, and on broken files."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import numpy as np
import torch
from hypothesis import given, strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from advisor import AdapterReport, inspect_adapter, truncate_adapter
from advisor.adapters import open_adapter
from advisor.adapters.inspect import factors
from advisor.adapters.spectrum import rank_for
from advisor.cli.run import run
from advisor.errors import AdvisorError, InvalidInputError, MissingExtraError, UnsupportedError
from advisor.render.adapter import adapter as screen, truncated
from advisor.render.terminal import Look, draw
from advisor.values.adapter import ModuleState

PREFIX = "base_model.model."
Q0, Q1 = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Tensors = dict[str, torch.Tensor]


# Adapters made by hand


def write(folder: Path, tensors: Mapping[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "init_lora_weights": True, **config}
    (folder / CONFIG).write_text(json.dumps(settings), encoding="utf-8")
    return folder


def pair(module: str, a: torch.Tensor, b: torch.Tensor) -> Tensors:
    return {f"{PREFIX}{module}.lora_A.weight": a, f"{PREFIX}{module}.lora_B.weight": b}


def with_spectrum(sizes: list[float], rank: int, outputs: int = 96, inputs: int = 80, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A (rank × in) and B (out × rank) whose product has these singular values, hidden behind a random change of basis."""
    random = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    left, right = torch.linalg.qr(noise(outputs, len(sizes)))[0], torch.linalg.qr(noise(inputs, len(sizes)))[0]
    mix = noise(len(sizes), rank)
    b = left @ torch.diag(torch.tensor(sizes, dtype=torch.float64).sqrt()) @ mix
    a = torch.linalg.pinv(mix) @ torch.diag(torch.tensor(sizes, dtype=torch.float64).sqrt()) @ right.T
    return a, b


def random_pair(rank: int = 8, outputs: int = 96, inputs: int = 80, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rank, inputs, generator=random), torch.randn(outputs, rank, generator=random)


def only(report: AdapterReport) -> Any:
    (module,) = report.modules
    return module


# What is planted is found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("planted", [1, 3, 5])
def test_a_planted_rank_is_recovered(tmp_path: Path, planted: int, dtype: torch.dtype) -> None:
    a, b = with_spectrum([1.0, 0.8, 0.6, 0.5, 0.4][:planted], rank=8)
    spectrum = only(inspect_adapter(write(tmp_path, pair(Q0, a.to(dtype), b.to(dtype))))).spectrum
    assert spectrum.numerical_rank == planted
    assert len(spectrum.singular_values) == 8


def test_a_full_spectrum_is_not_called_low(tmp_path: Path) -> None:
    a, b = random_pair()
    for name, dtype in (("wide", torch.float32), ("short", torch.bfloat16)):
        module = only(inspect_adapter(write(tmp_path / name, pair(Q0, a.to(dtype), b.to(dtype)))))
        assert module.spectrum.numerical_rank == 8


@pytest.mark.parametrize(("rslora", "scale"), [(False, 16 / 8), (True, 16 / math.sqrt(8))])
def test_singular_values_are_torchs_with_the_scale_in_them(tmp_path: Path, rslora: bool, scale: float) -> None:
    a, b = random_pair()
    module = only(inspect_adapter(write(tmp_path, pair(Q0, a, b), use_rslora=rslora)))
    expected = torch.linalg.svdvals(scale * b.double() @ a.double())[:8]
    assert module.scale == pytest.approx(scale)
    np.testing.assert_allclose(module.spectrum.singular_values, expected.numpy(), rtol=1e-9)
    assert module.update_norm == pytest.approx(float((scale * b.double() @ a.double()).norm()))
    assert module.a_norm == pytest.approx(float(a.double().norm()))
    assert module.b_norm == pytest.approx(float(b.double().norm()))


# Spectra whose readings are known by hand: (values, stable rank, effective rank, entropy rank, k90, k95).
@pytest.mark.parametrize(
    ("values", "stable", "effective", "entropy", "k90", "k95"),
    [
        ([1.0, 1.0, 1.0, 1.0], 4.0, 4.0, 4.0, 4, 4),
        ([1.0], 1.0, 1.0, 1.0, 1, 1),
        ([2.0, 1.0], 1.25, math.exp(math.log(3) - 2 / 3 * math.log(2)), math.exp(math.log(5) - 4 / 5 * math.log(4)), 2, 2),
        ([3.0, 1.0], 10 / 9, math.exp(math.log(4) - 3 / 4 * math.log(3)), math.exp(math.log(10) - 9 / 10 * math.log(9)), 1, 2),
    ],
)
def test_the_readings_of_known_spectra(
    tmp_path: Path, values: list[float], stable: float, effective: float, entropy: float, k90: int, k95: int
) -> None:
    a, b = with_spectrum(values, rank=len(values))
    spectrum = only(inspect_adapter(write(tmp_path, pair(Q0, a, b), r=len(values), lora_alpha=len(values)))).spectrum
    assert spectrum.singular_values == pytest.approx(values, rel=1e-6)
    assert spectrum.stable_rank == pytest.approx(stable, rel=1e-6)
    assert spectrum.effective_rank == pytest.approx(effective, rel=1e-6)
    assert spectrum.entropy_rank == pytest.approx(entropy, rel=1e-6)
    assert (rank_for(values, 0.9), spectrum.rank_for_95) == (k90, k95)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12), st.floats(0.05, 1.0))
def test_the_rank_for_a_share_holds_it_and_no_smaller_one_does(values: list[float], share: float) -> None:
    values = sorted(values, reverse=True)
    rank = rank_for(values, share)
    total = sum(value * value for value in values)
    assert 1 <= rank <= len(values)
    assert sum(value * value for value in values[:rank]) >= share * total * (1 - 1e-12)
    assert rank == 1 or sum(value * value for value in values[: rank - 1]) < share * total


def test_energy_halves_from_the_highest_rank_and_never_rises(tmp_path: Path) -> None:
    (a, b), (c, d) = with_spectrum([4.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.1, 0.1], 8), with_spectrum([1.0] * 8, 8, seed=5)
    report = inspect_adapter(write(tmp_path, {**pair(Q0, a, b), **pair(Q1, c, d)}))
    assert [kept.rank for kept in report.energy] == [4, 2, 1]
    assert all(high.pooled > low.pooled for high, low in zip(report.energy, report.energy[1:], strict=False))
    squares = [16, 4, 1, 1, 0.25, 0.25, 0.01, 0.01]
    assert report.energy[0].pooled == pytest.approx((sum(squares[:4]) + 4) / (sum(squares) + 8))
    assert report.energy[0].lowest == pytest.approx(0.5)
    assert report.energy[0].lowest_module == Q1
    assert report.energy_at_half_rank == report.energy[0].pooled


# Truncation


def delta(folder: Path, module: str = Q0) -> torch.Tensor:
    """scale · B · A as peft's config says it, in float64."""
    adapter = open_adapter(folder)
    found = next(entry for entry in adapter.layout.pairs if entry.module == module)
    a, b = factors(adapter.file, found)
    return found.scale * torch.from_numpy(b[0].astype("f8")) @ torch.from_numpy(a[0].astype("f8"))


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_truncation_to_the_planted_rank_loses_nothing(tmp_path: Path, dtype: torch.dtype, rslora: bool) -> None:
    a, b = with_spectrum([1.0, 0.5, 0.25], rank=8)
    source = write(tmp_path / "source", pair(Q0, a.to(dtype), b.to(dtype)), use_rslora=rslora)
    written = truncate_adapter(source, 3, tmp_path / "cut")
    before, after = delta(source), delta(tmp_path / "cut")
    lost = float((before - after).norm() / before.norm())
    assert lost < (2e-7 if dtype is torch.float32 else 1e-2)  # bfloat16 factors carry noise of their own beyond the planted rank
    assert written.rank == 3
    assert written.energy_kept == pytest.approx(1.0, abs=1e-4)
    assert written.params == 3 * (96 + 80)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_truncated_update_is_the_best_of_its_rank(tmp_path: Path, rank: int) -> None:
    a, b = random_pair()
    source = write(tmp_path / "source", pair(Q0, a, b))
    truncate_adapter(source, rank, tmp_path / "cut")
    u, s, v = torch.linalg.svd(delta(source), full_matrices=False)
    best = u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank]
    assert float((delta(tmp_path / "cut") - best).norm() / best.norm()) < 1e-6


def test_zero_modules_stay_zero_and_lower_ranks_stay_as_they_are(tmp_path: Path) -> None:
    (a, b), (c, d) = random_pair(), random_pair(rank=2, seed=3)
    tensors = {**pair(Q0, a, torch.zeros_like(b)), **pair(Q1, c, d)}
    source = write(tmp_path / "source", tensors, rank_pattern={"layers.1.self_attn.q_proj": 2})
    written = truncate_adapter(source, 4, tmp_path / "cut")
    assert delta(tmp_path / "cut", Q0).abs().max() == 0.0
    assert torch.allclose(delta(tmp_path / "cut", Q1), delta(source, Q1), rtol=1e-5, atol=1e-6)
    assert written.energy_kept == pytest.approx(1.0)


def test_other_tensors_are_copied_byte_for_byte(tmp_path: Path) -> None:
    a, b = random_pair()
    head = torch.randn(7, 5).to(torch.bfloat16)
    source = write(tmp_path / "source", {**pair(Q0, a, b), f"{PREFIX}lm_head.weight": head}, modules_to_save=["lm_head"])
    assert inspect_adapter(source).other_tensors == (f"{PREFIX}lm_head.weight",)
    truncate_adapter(source, 2, tmp_path / "cut")
    assert torch.equal(load_file(tmp_path / "cut" / WEIGHTS)[f"{PREFIX}lm_head.weight"], head)
    assert json.loads((tmp_path / "cut" / CONFIG).read_text())["modules_to_save"] == ["lm_head"]


def test_the_folder_beside_is_the_default(tmp_path: Path) -> None:
    a, b = random_pair()
    written = truncate_adapter(write(tmp_path / "first", pair(Q0, a, b)), 2)
    assert Path(written.path) == tmp_path / "first-r2"
    assert sorted(child.name for child in tmp_path.iterdir()) == ["first", "first-r2"]


def test_an_existing_folder_is_never_written_over(tmp_path: Path) -> None:
    a, b = random_pair()
    source = write(tmp_path / "source", pair(Q0, a, b))
    (tmp_path / "out").mkdir()
    truncate_adapter(source, 4, tmp_path / "out")  # empty: taken
    before = (tmp_path / "out" / WEIGHTS).read_bytes()
    for out in (tmp_path / "out", source):
        with pytest.raises(InvalidInputError, match="exists already"):
            truncate_adapter(source, 2, out)
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == before


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (a, b), (c, d) = random_pair(), random_pair(seed=4)
    source = write(tmp_path / "source", {**pair(Q0, a, b), **pair(Q1, c, d)})
    from advisor.adapters import truncate

    real, calls = truncate._cut_factors, []

    def fails(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(truncate, "_cut_factors", fails)
    with pytest.raises(InvalidInputError, match="cannot be written: No space left"):
        truncate_adapter(source, 2, tmp_path / "cut")
    assert [child.name for child in tmp_path.iterdir()] == ["source"]


# Real adapters, made by peft on the CPU


def llama() -> nn.Module:
    config = LlamaConfig(
        hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=64
    )
    return LlamaForCausalLM(config)


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=32))


class Pictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, kernel_size=3)
        self.embed = nn.Embedding(40, 24)
        self.out = nn.Linear(24, 9)


class Experts(nn.Module):
    """Fused weights of several experts, as transformers 5 keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 20, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,eoi->beo", x, self.up)


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Module()
        self.mlp.experts = Experts()

    def forward(self, x: torch.Tensor) -> Any:
        return self.mlp.experts(x)


CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "all-linear": (llama, {"r": 8, "lora_alpha": 12, "target_modules": "all-linear"}),
    "rslora": (llama, {"r": 8, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    "patterns": (
        llama,
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "v_proj", "up_proj"],
            "rank_pattern": {"v_proj": 6, r"^model\.layers\.1\.mlp\.up_proj": 8},
            "alpha_pattern": {"layers.0.self_attn.q_proj": 20, "v_proj": 3},
        },
    ),
    "conv1d": (gpt2, {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "conv2d and embedding": (Pictures, {"r": 2, "lora_alpha": 5, "target_modules": ["conv", "embed", "out"]}),
    "experts": (Mixture, {"r": 2, "lora_alpha": 6, "target_modules": [], "target_parameters": ["mlp.experts.up"]}),
    "lora bias": (gpt2, {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn"], "fan_in_fan_out": True, "lora_bias": True}),
    "gaussian": (llama, {"r": 4, "lora_alpha": 8, "target_modules": ["o_proj"], "init_lora_weights": "gaussian"}),
}


def trained(case: str, folder: Path) -> tuple[nn.Module, Tensors]:
    """An adapter with random factors, saved to the folder; the base model again, and what merging adds to each of its weights."""
    make, settings = CASES[case]
    torch.manual_seed(0)
    model = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = get_peft_model(model, LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(folder)
    merged = adapted.merge_and_unload().state_dict()
    base = make()
    base.load_state_dict(before)
    return base, {name: merged[name] - tensor for name, tensor in before.items()}


def as_matrices(name: str, change: torch.Tensor, case: str) -> list[torch.Tensor]:
    if case == "experts":
        return list(change)
    return [change.flatten(1)]


@pytest.mark.filterwarnings("ignore:Adapter 'default'")  # peft 0.21 takes a bias for an ungathered shard
@pytest.mark.parametrize("case", CASES)
def test_the_update_is_what_peft_merges(case: str, tmp_path: Path) -> None:
    _, changes = trained(case, tmp_path)
    report = inspect_adapter(tmp_path)
    expected = {}
    for name, change in changes.items():
        weight = name.rpartition(".")[0]
        if change.abs().max() == 0 or name.endswith(".bias"):
            continue
        matrices = as_matrices(name, change, case)
        for number, matrix in enumerate(matrices):
            expected[f"{weight}[{number}]" if len(matrices) > 1 else weight] = matrix.double()
    assert {module.name for module in report.modules} == set(expected)
    for module in report.modules:
        values = torch.linalg.svdvals(expected[module.name])[: module.rank]
        assert module.update_norm == pytest.approx(float(expected[module.name].norm()), rel=1e-4), module.name
        np.testing.assert_allclose(module.spectrum.singular_values, values.numpy(), rtol=1e-3)
        assert module.state is ModuleState.TRAINED


@pytest.mark.filterwarnings("ignore:Adapter 'default'")  # peft 0.21 takes a bias for an ungathered shard
@pytest.mark.parametrize("case", CASES)
def test_peft_loads_what_truncation_writes(case: str, tmp_path: Path) -> None:
    base, changes = trained(case, tmp_path / "source")
    rank = 1 if CASES[case][1]["r"] == 2 else 3
    truncate_adapter(tmp_path / "source", rank, tmp_path / "cut")
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    merged = PeftModel.from_pretrained(base, tmp_path / "cut").merge_and_unload().state_dict()
    checked = 0
    for name, change in changes.items():
        if change.abs().max() == 0 or name.endswith(".bias"):
            continue
        for was, now in zip(as_matrices(name, change, case), as_matrices(name, merged[name] - before[name], case), strict=True):
            u, s, v = torch.linalg.svd(was.double(), full_matrices=False)
            best = u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank]
            assert float((now - best).norm() / best.norm()) < 1e-4, name
            checked += 1
    assert checked >= 2


def test_doras_magnitudes_are_held_against_the_base(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = llama()
    model.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], use_dora=True))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
            if "magnitude" in name and "down_proj" in name:
                parameter.mul_(1.1)
    adapted.save_pretrained(tmp_path / "adapter")

    unknown = inspect_adapter(tmp_path / "adapter")
    assert unknown.method.is_dora
    assert all(module.magnitude is None for module in unknown.modules)
    assert "dora-drift-unknown" in {finding.id for finding in unknown.findings}

    known = inspect_adapter(tmp_path / "adapter", base=tmp_path / "base")
    for module in known.modules:
        moved = 0.1 if module.kind == "down_proj" else 0.0
        assert module.magnitude is not None
        assert module.magnitude.mean == pytest.approx(moved, abs=1e-5)
        assert module.magnitude.max_abs == pytest.approx(moved, abs=1e-5)
        assert module.base_norm is not None
        assert module.base_norm > 0
    assert "dora-drift" in {finding.id for finding in known.findings}

    truncate_adapter(tmp_path / "adapter", 2, tmp_path / "cut")
    kept = load_file(tmp_path / "cut" / WEIGHTS)
    for name, tensor in load_file(tmp_path / "adapter" / WEIGHTS).items():
        if "magnitude" in name:
            assert torch.equal(kept[name], tensor)
    loaded = PeftModel.from_pretrained(llama(), tmp_path / "cut")
    assert loaded.peft_config["default"].use_dora
    assert loaded.peft_config["default"].r == 2


def test_base_norms_are_those_of_the_weights(tmp_path: Path) -> None:
    for transposed in (False, True):
        weight = torch.randn(96, 80)
        folder = tmp_path / str(transposed)
        folder.mkdir()
        save_file({f"{Q0}.weight": (weight.T if transposed else weight).contiguous()}, folder / "model.safetensors")
        a, b = random_pair()
        magnitude = {f"{PREFIX}{Q0}.lora_magnitude_vector": weight.norm(dim=1) * 0.9}
        adapter = write(folder / "adapter", {**pair(Q0, a, b), **magnitude}, use_dora=True, fan_in_fan_out=transposed)
        module = only(inspect_adapter(adapter, base=folder))
        assert module.base_norm == pytest.approx(float(weight.norm()))
        assert module.magnitude is not None
        assert module.magnitude.mean == pytest.approx(-0.1, abs=1e-6)


# Findings


def ids(report: AdapterReport) -> set[str]:
    return {finding.id for finding in report.findings}


def flat(share: float) -> list[float]:
    """Eight values of which the first four hold this share of the energy."""
    return [math.sqrt(share / 4)] * 4 + [math.sqrt((1 - share) / 4)] * 4


@pytest.mark.parametrize(
    ("share", "finding"),
    [(0.97, "adapter-rank-unused"), (0.90, "adapter-rank-open"), (0.75, "adapter-rank-used"), (0.5, "adapter-rank-used")],
)
def test_what_half_the_rank_holds_is_read_by_the_gate(tmp_path: Path, share: float, finding: str) -> None:
    a, b = with_spectrum(flat(share), rank=8)
    report = inspect_adapter(write(tmp_path, pair(Q0, a, b)))
    assert finding in ids(report)
    assert report.energy_at_half_rank == pytest.approx(share)
    assert report.test is not None
    assert report.test.rank == 4
    assert report.test.command.endswith("--truncate 4")


def test_untrained_and_faint_modules_are_named(tmp_path: Path) -> None:
    a, b = random_pair()
    names = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(4)]
    sizes = (1.0, 0.0, 1e-5, 1.2)
    tensors = {key: tensor for name, size in zip(names, sizes, strict=True) for key, tensor in pair(name, a.clone(), b * size).items()}
    report = inspect_adapter(write(tmp_path, tensors))
    states = [ModuleState.TRAINED, ModuleState.UNTRAINED, ModuleState.FAINT, ModuleState.TRAINED]
    assert [module.state for module in report.modules] == states
    messages = {finding.id: finding.message for finding in report.findings}
    assert names[1] in messages["adapter-untrained"]
    assert names[2] in messages["adapter-faint"]
    assert report.modules[1].spectrum is None
    assert report.modules[1].update_norm == 0.0


def test_a_fresh_adapter_is_wholly_untrained(tmp_path: Path) -> None:
    get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(tmp_path)
    report = inspect_adapter(tmp_path)
    assert [finding.level.value for finding in report.findings if finding.id == "adapter-untrained"] == ["error"]
    assert report.test is None
    assert report.energy == ()
    assert report.cannot_tell == ()
    with pytest.raises(InvalidInputError, match="every module is untrained"):
        truncate_adapter(tmp_path, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_factors_that_are_not_finite_are_found_and_not_truncated(tmp_path: Path, value: float) -> None:
    (a, b), (c, d) = random_pair(), random_pair(seed=2)
    b[3, 1] = value
    source = write(tmp_path / "source", {**pair(Q0, a, b), **pair(Q1, c, d)})
    report = inspect_adapter(source)
    assert "adapter-not-finite" in ids(report)
    assert [module.state for module in report.modules] == [ModuleState.NOT_FINITE, ModuleState.TRAINED]
    assert report.modules[0].update_norm is None
    json.loads(report.model_dump_json(), parse_constant=pytest.fail)
    with pytest.raises(InvalidInputError, match="NaN or infinity"):
        truncate_adapter(source, 2)
    assert [child.name for child in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("init", "finding"),
    [
        ("pissa_niter_16", "adapter-holds-base"),
        ("olora", "adapter-holds-base"),
        ("loftq", "adapter-holds-base"),
        (False, "adapter-starts-nonzero"),
    ],
)
def test_an_initialisation_that_hides_training_is_said(tmp_path: Path, init: Any, finding: str) -> None:
    a, b = random_pair()
    source = write(tmp_path, pair(Q0, a, b), init_lora_weights=init)
    assert finding in ids(inspect_adapter(source))
    if finding == "adapter-holds-base":
        with pytest.raises(UnsupportedError, match="init_lora_weights"):
            truncate_adapter(source, 2)


def test_what_a_spectrum_cannot_tell_is_said_with_its_facts(tmp_path: Path) -> None:
    a, b = random_pair()
    caveats = inspect_adapter(write(tmp_path, pair(Q0, a, b))).cannot_tell
    assert {fact for caveat in caveats for fact in caveat.evidence} == {"P2", "P3", "P4"}


# What is refused, in one line


def lacking(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / CONFIG
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def cut(name: str, size_bytes: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size_bytes])


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content)


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def tensors(**changes: torch.Tensor | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        for name, tensor in changes.items():
            held.pop(f"{PREFIX}{Q0}.{name}.weight", None)
            if tensor is not None:
                held[f"{PREFIX}{Q0}.{name}.weight"] = tensor
        save_file(held, folder / WEIGHTS)

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lacking(CONFIG), "holds no adapter_config.json"),
        (lacking(WEIGHTS), "the adapter's weights are missing"),
        (pickled, "is a pickle, which can run any code when it is opened"),
        (text(CONFIG, '{"r": 8, "lora_al'), "adapter_config.json is not valid JSON"),
        (text(CONFIG, ""), "is empty"),
        (text(CONFIG, "[1]"), "holds a list, not a JSON object"),
        (config(peft_type="IA3"), "peft_type is IA3"),
        (config(peft_type=None), "peft_type is None"),
        (config(r=0), "r is 0; it must be a whole number above 0"),
        (config(r="eight"), 'r is "eight"'),
        (config(r=None), "r is null"),
        (config(lora_alpha=None), "lora_alpha is null"),
        (config(lora_alpha=math.nan), "lora_alpha is NaN"),
        (config(r=16), "says 16"),
        (config(rank_pattern={"q_proj": 4}), "q_proj has rank 8 in A .shape .8, 80.., and the config says 4"),
        (config(rank_pattern={"(": 4}), "no regular expression"),
        (config(rank_pattern=[1]), "rank_pattern must be an object"),
        (config(use_qalora=True), "QALoRA"),
        (config(target_parameters="x"), "target_parameters must be a list"),
        (text(WEIGHTS, ""), "no safetensors file: it holds 0 bytes"),
        (text(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
        (text(WEIGHTS, "not a model at all, but long enough"), "no safetensors file"),
        (cut(WEIGHTS, 40), "cut short in its header"),
        (cut(WEIGHTS, 4000), "was cut short: it holds 4,000 of"),
        (tensors(lora_A=torch.zeros(4, 80)), "rank 4 in A"),
        (tensors(lora_B=torch.zeros(96, 9)), "rank 9 in B"),
        (tensors(lora_A=None), "only one of its two factors"),
        (tensors(lora_B=None), "only one of its two factors"),
        (tensors(lora_A=None, lora_B=None, other=torch.ones(2)), "holds no lora_A and lora_B"),
        (tensors(lora_A=torch.zeros(640)), "which is no factor"),
        (tensors(lora_A=torch.zeros(8, 80, dtype=torch.int32)), "stored as I32"),
        (tensors(lora_magnitude_vector=torch.ones(7)), "96 outputs"),
        (tensors(lora_diag=torch.ones(8)), "a variant of LoRA that is not read"),
    ],
)
def test_a_broken_adapter_is_one_clear_line(
    tmp_path: Path, damage: Callable[[Path], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = random_pair()
    folder = write(tmp_path / "adapter", pair(Q0, a, b))
    damage(folder)
    with pytest.raises(AdvisorError, match=said) as refusal:
        inspect_adapter(folder)
    assert "\n" not in str(refusal.value)
    assert run(["inspect", str(folder)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("end", range(0, 6000, 173))
def test_no_cut_of_the_weights_is_taken_for_an_adapter(tmp_path: Path, end: int) -> None:
    a, b = random_pair()
    folder = write(tmp_path, pair(Q0, a, b))
    assert (folder / WEIGHTS).stat().st_size > 5800
    cut(WEIGHTS, end)(folder)
    with pytest.raises(AdvisorError):
        inspect_adapter(folder)


def test_whatever_bytes_are_flipped_it_is_read_or_refused(tmp_path: Path) -> None:
    a, b = random_pair()
    folder = write(tmp_path, pair(Q0, a, b))
    weights, settings, chance = (folder / WEIGHTS).read_bytes(), (folder / CONFIG).read_bytes(), random.Random(0)
    refused = 0
    for _ in range(300):
        flipped, changed = bytearray(weights), bytearray(settings)
        for _ in range(chance.choice([1, 2, 8])):
            flipped[chance.randrange(400)] = chance.randrange(256)
            changed[chance.randrange(len(changed))] = chance.randrange(32, 127)
        (folder / WEIGHTS).write_bytes(flipped)
        (folder / CONFIG).write_bytes(changed if chance.random() < 0.2 else settings)
        try:
            inspect_adapter(folder)
        except AdvisorError:
            refused += 1
    assert 100 < refused < 300


@pytest.mark.parametrize(("rank", "said"), [(0, "at least 1"), (-1, "at least 1"), (8, "rank is 8 already"), (100, "rank is 8 already")])
def test_a_rank_that_cannot_be_cut_to(tmp_path: Path, rank: int, said: str) -> None:
    a, b = random_pair()
    with pytest.raises(InvalidInputError, match=said):
        truncate_adapter(write(tmp_path, pair(Q0, a, b)), rank)


def test_the_folder_above_names_the_checkpoints(tmp_path: Path) -> None:
    a, b = random_pair()
    write(tmp_path / "checkpoint-10", pair(Q0, a, b))
    with pytest.raises(InvalidInputError, match="checkpoint-10 does: give that folder"):
        inspect_adapter(tmp_path)
    with pytest.raises(InvalidInputError, match="no such folder"):
        inspect_adapter(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "checkpoint-10" / CONFIG).unlink()
    with pytest.raises(InvalidInputError, match="a whole model, not an adapter"):
        inspect_adapter(tmp_path)


def test_the_file_stands_for_its_folder(tmp_path: Path) -> None:
    a, b = random_pair()
    folder = write(tmp_path, pair(Q0, a, b))
    assert inspect_adapter(folder / WEIGHTS) == inspect_adapter(folder)
    (folder / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(UnsupportedError, match=r"holds adapter_model.safetensors too"):
        inspect_adapter(folder / "adapter_model.bin")


def test_without_numpy_the_install_line_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = random_pair()
    folder = write(tmp_path, pair(Q0, a, b))
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'finetune-advisor\[adapters\]'"):
        inspect_adapter(folder)


# The command and its screens


def sample(folder: Path) -> Path:
    """Two layers of three kinds, with a spectrum that falls, one untrained module and one whole weight."""
    held: Tensors = {f"{PREFIX}lm_head.weight": torch.ones(4, 4)}
    for layer in range(2):
        for seed, kind in enumerate(("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")):
            a, b = with_spectrum([0.5 / (1 + index) ** (1 + 0.2 * (layer + seed)) for index in range(8)], rank=8, seed=10 * layer + seed)
            untrained = layer == 1 and kind.endswith("v_proj")
            held |= pair(f"model.layers.{layer}.{kind}", a.float(), (b * 0).float() if untrained else b.float())
    return write(folder, held, base_model_name_or_path="meta-llama/Llama-3.1-8B", lora_alpha=8)


def test_screens(tmp_path: Path, matches_screen: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sample(Path("outputs/first"))
    report = inspect_adapter("outputs/first")
    for name, shown in (("adapter-80.txt", draw(screen(report), Look())), ("adapter-80-modules.txt", draw(screen(report, True), Look()))):
        assert max(map(len, shown.splitlines())) <= 80
        matches_screen(name, shown)
    matches_screen("adapter-truncated-80.txt", draw(truncated(truncate_adapter("outputs/first", 4, "outputs/cut")), Look()))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sample(tmp_path / "first")
    assert run(["inspect", str(folder), "--json"]) == 0
    assert AdapterReport.model_validate_json(capsys.readouterr().out) == inspect_adapter(folder)
    assert run(["inspect", str(folder)]) == 0
    assert "q_proj" in capsys.readouterr().out
    assert run(["inspect", str(folder), "--truncate", "4", "--out", str(tmp_path / "cut"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rank"] == 4
    assert inspect_adapter(tmp_path / "cut").rank == 4
    assert run(["inspect", str(folder), "--out", str(tmp_path / "other")]) == 2
    assert "--truncate" in capsys.readouterr().err
