"""A saved adapter, module by module: how large its update is, how it spreads over the rank, and what follows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from advisor.adapters.base import BaseNorms, base_norms
from advisor.adapters.config import WEIGHTS, AdapterConfig, adapter_folder, read_adapter_config
from advisor.adapters.findings import caveats, findings, truncation_test
from advisor.adapters.layout import Layout, Pair, expert_names, lay_out
from advisor.adapters.spectrum import read_spectrum, roots
from advisor.adapters.tensors import TensorFile, open_tensors, read
from advisor.bounded import named, size_bytes
from advisor.refusals import boundary
from advisor.values.adapter import AdapterReport, EnergyKept, MagnitudeDrift, ModuleState, ModuleUpdate, squares_of
from advisor.values.vocabulary import Method

FAINT_SHARE = 1e-3
"""A module counts as faint when the root mean square of its update is below this share of the middle module's. Judgement: under one
recipe the modules' updates lie within a factor of ten to fifty of each other."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter's folder, opened and checked, with no weight read yet."""

    folder: Path
    config: AdapterConfig
    file: TensorFile
    layout: Layout

    @property
    def params(self) -> int:
        pairs = self.layout.pairs
        factors = sum(math.prod(tensor.shape) for pair in pairs for tensor in (pair.a, pair.b))
        return factors + sum(math.prod(pair.magnitude.shape) for pair in pairs if pair.magnitude is not None)


def open_adapter(path: str | Path) -> Adapter:
    """Raises one clear line for what is no readable LoRA or DoRA adapter."""
    folder = adapter_folder(path)
    config = read_adapter_config(folder)
    file = open_tensors(folder / WEIGHTS)
    return Adapter(folder, config, file, lay_out(file, config))


def inspect_adapter(path: str | Path, base: str | Path | None = None) -> AdapterReport:
    """Reads the adapter in the folder `path`. `base`, the folder of the base model's weights, adds how far DoRA's magnitudes moved."""
    with boundary(named(path)):
        return _inspected(open_adapter(path), base)


def _inspected(adapter: Adapter, base: str | Path | None) -> AdapterReport:
    norms = None if base is None else base_norms(Path(base), adapter.config.fan_in_fan_out)
    modules = _with_faint([update for pair in adapter.layout.pairs for update in _updates(adapter, pair, norms)])
    config = adapter.config
    energy = tuple(_energy(modules))
    report = AdapterReport(
        path=str(adapter.folder),
        base_model=config.base_model,
        method=Method.DORA if config.use_dora else Method.LORA,
        rank=config.rank,
        alpha=config.alpha,
        use_rslora=config.use_rslora,
        init=config.init,
        modules=modules,
        other_tensors=tuple(tensor.name for tensor in adapter.layout.others if "lora_magnitude_vector" not in tensor.name),
        params=adapter.params,
        file_bytes=size_bytes(adapter.file.path),
        energy=energy,
    )
    read_out = report.model_copy(update={"test": truncation_test(report), "cannot_tell": tuple(caveats(report))})
    found = tuple(findings(read_out, config.begins_with_zero_b, config.changes_base))
    return read_out.model_copy(update={"findings": found})


def _updates(adapter: Adapter, pair: Pair, norms: BaseNorms | None) -> Iterator[ModuleUpdate]:
    a, b = factors(adapter.file, pair)
    base = None if norms is None else norms.of(pair)
    drift = None if base is None or pair.magnitude is None else _drift(read(adapter.file, pair.magnitude), base)
    for number, name in enumerate(expert_names(pair)):
        found = roots(b[number], a[number])
        spectrum = None if found is None else read_spectrum(found, pair.scale, _coarser(pair))
        state = ModuleState.NOT_FINITE if found is None else ModuleState.UNTRAINED if spectrum is None else ModuleState.TRAINED
        norm = None if found is None else 0.0 if spectrum is None else math.hypot(*spectrum.singular_values)
        yield ModuleUpdate(
            name=name,
            kind=pair.kind,
            layer=pair.layer,
            rank=pair.rank,
            in_features=pair.in_features,
            out_features=pair.out_features,
            scale=pair.scale,
            dtype=_coarser(pair),
            a_norm=None if found is None else found.a_norm,
            b_norm=None if found is None else found.b_norm,
            update_norm=norm,
            state=state,
            spectrum=spectrum,
            base_norm=None if base is None else float((base.astype("f8") ** 2).sum() ** 0.5),
            magnitude=drift,
        )


def factors(file: TensorFile, pair: Pair) -> tuple[Any, Any]:
    """A as (experts, rank, in) and B as (experts, out, rank), whatever the layer's kind (peft 0.21, ParamWrapper.get_delta_weight)."""
    a, b = read(file, pair.a), read(file, pair.b)
    a = a.reshape(pair.experts, pair.rank, pair.in_features)
    b = b.reshape(pair.out_features, pair.rank, pair.experts).transpose(2, 0, 1)
    return a, b


def _coarser(pair: Pair) -> str:
    """The type whose rounding matters: the shorter of the two factors'."""
    return next((dtype for dtype in ("BF16", "F16", "F32") if dtype in (pair.a.dtype, pair.b.dtype)), "F64")


def _drift(magnitude: Any, base: Any) -> MagnitudeDrift | None:
    flat = magnitude.reshape(-1).astype("f8")
    if flat.shape != base.shape or not (base > 0).all():
        return None
    drift = flat / base - 1.0
    return MagnitudeDrift(mean=float(drift.mean()), mean_abs=float(abs(drift).mean()), max_abs=float(abs(drift).max()))


def _with_faint(modules: Sequence[ModuleUpdate]) -> tuple[ModuleUpdate, ...]:
    sizes = [_rms(module) for module in modules if module.state is ModuleState.TRAINED]
    limit = FAINT_SHARE * median(sizes) if sizes else 0.0
    return tuple(
        module.model_copy(update={"state": ModuleState.FAINT}) if module.state is ModuleState.TRAINED and _rms(module) < limit else module
        for module in modules
    )


def _rms(module: ModuleUpdate) -> float:
    return (module.update_norm or 0.0) / math.sqrt(module.in_features * module.out_features)


def _energy(modules: Sequence[ModuleUpdate]) -> Iterator[EnergyKept]:
    """At r/2, r/4 … 1 of the highest rank."""
    read_ones = [module for module in modules if module.spectrum is not None]
    rank = max(module.rank for module in modules) // 2
    while rank >= 1 and read_ones:
        yield energy_kept(read_ones, rank)
        rank //= 2


def energy_kept(modules: Sequence[ModuleUpdate], rank: int) -> EnergyKept:
    """What is left when each of the modules, all with a spectrum, is cut to `rank`."""
    shares = [min(1.0, module.energy_at(rank)) for module in modules]
    whole = squares_of([module.update_norm or 0.0 for module in modules])
    lowest = min(range(len(modules)), key=shares.__getitem__)
    pooled = sum(share * size for share, size in zip(shares, whole, strict=True)) / sum(whole)
    return EnergyKept(rank=rank, pooled=min(1.0, pooled), median=median(shares), lowest=shares[lowest], lowest_module=modules[lowest].name)
