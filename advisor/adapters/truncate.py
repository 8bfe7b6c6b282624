"""Writes an adapter of lower rank: the best approximation of every update, so that it can be evaluated without training again.

Symbols as in spectrum.py. With s·Rb·Raᵀ = U S Wᵀ, the update cut to rank k is s·B'·A' where
    B' = B · Raᵀ·W_k·(S_k/s)^-1/2        A' = (S_k/s)^-1/2·U_kᵀ·Rb · A        (out × k and k × in; the Q factors are not needed)
and the new alpha keeps s: alpha' = s·k, or s·√k with rsLoRA.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from advisor.adapters.config import CONFIG, WEIGHTS, AdapterConfig
from advisor.adapters.inspect import Adapter, energy_kept, factors, inspect_adapter, open_adapter
from advisor.adapters.layout import Pair
from advisor.adapters.spectrum import core, roots
from advisor.adapters.tensors import NewTensor, numpy, read_bytes, write_header
from advisor.bounded import children, exists, is_folder, place, resolved, size_bytes
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.json_files import read_object
from advisor.user_files import unfinished
from advisor.values.adapter import ModuleState, TruncatedAdapter

DTYPE = "F32"
"""Of the new factors: rounding a new factor to 16 bits again would add an error of its own to the test. Peft trains adapters in fp32."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """One pair and the rank it gets."""

    pair: Pair
    rank: int

    def alpha(self, use_rslora: bool) -> float:
        """The alpha with which the new rank has the old scale; a whole number where it is one."""
        alpha = self.pair.scale * (math.sqrt(self.rank) if use_rslora else self.rank)
        return round(alpha) if math.isclose(alpha, round(alpha), rel_tol=1e-12) else alpha


def truncate_adapter(path: str | Path, rank: int, out: str | Path | None = None) -> TruncatedAdapter:
    """Writes the adapter in `path`, every module cut to `rank` or its own lower rank, to the new folder `out` (path-rN if left out).

    The folder appears whole or not at all, and an existing one is never written over.
    """
    adapter = open_adapter(path)
    _refuse(adapter, rank)
    target = _target(adapter.folder, rank, out)
    report = inspect_adapter(path)
    if broken := report.in_state(ModuleState.NOT_FINITE):
        raise InvalidInputError(f"{adapter.folder}: {broken[0].name} holds NaN or infinity; there is nothing to truncate")
    live = [module for module in report.modules if module.spectrum is not None]
    if not live:
        raise InvalidInputError(f"{adapter.folder}: every module is untrained; there is nothing to truncate")
    cuts = tuple(_Cut(pair, min(rank, pair.rank)) for pair in adapter.layout.pairs)
    config = _new_config(adapter.config, cuts)
    _write_folder(adapter, cuts, config, target)
    return TruncatedAdapter(
        path=str(target),
        source=str(adapter.folder),
        rank=rank,
        alpha=float(config["lora_alpha"]),
        energy_kept=energy_kept(live, rank).pooled,
        params=open_adapter(target).params,
        params_before=adapter.params,
        file_bytes=size_bytes(target / WEIGHTS),
    )


def _refuse(adapter: Adapter, rank: int) -> None:
    highest = max(pair.rank for pair in adapter.layout.pairs)
    if rank < 1:
        raise InvalidInputError(f"--truncate {rank}: the rank must be at least 1")
    if rank >= highest:
        raise InvalidInputError(f"--truncate {rank}: the adapter's rank is {highest} already; give a lower one")
    if adapter.config.changes_base:
        raise UnsupportedError(
            f"{adapter.config.path}: with init_lora_weights={adapter.config.init} the base weights were changed to match this rank; "
            "save it converted first (peft: path_initial_model_for_weight_conversion)"
        )
    parameters = [pair for pair in adapter.layout.pairs if pair.experts > 1]
    if parameters and (adapter.config.rank_pattern or adapter.config.alpha_pattern):
        raise UnsupportedError(f"{adapter.config.path}: rank_pattern together with target_parameters cannot be truncated")


def _target(folder: Path, rank: int, out: str | Path | None) -> Path:
    target = place(out) if out is not None else _beside(resolved(folder), rank)
    if exists(target) and not (is_folder(target) and not children(target)):
        raise InvalidInputError(f"{target} exists already and is left as it is; give another folder with --out")
    if not is_folder(target.parent):
        raise InvalidInputError(f"{target.parent}: no such folder to write into")
    return target


def _beside(folder: Path, rank: int) -> Path:
    return folder.parent / f"{folder.name}-r{rank}"


def _new_config(config: AdapterConfig, cuts: Sequence[_Cut]) -> dict[str, Any]:
    """The old config with the new ranks: the commonest pair of rank and alpha stands for all, the others stand in the patterns."""
    settings = {cut.pair.module: (cut.rank, cut.alpha(config.use_rslora)) for cut in cuts}
    (rank, alpha), _ = Counter(settings.values()).most_common(1)[0]
    # ^ and an escaped name: peft matches the end of a name, and one module's name may end like another's.
    named = {f"^{module.replace('.', chr(92) + '.')}": setting for module, setting in settings.items() if setting != (rank, alpha)}
    return read_object(config.path) | {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: own for name, (own, _) in named.items()},
        "alpha_pattern": {name: own for name, (_, own) in named.items()},
    }


def _write_folder(adapter: Adapter, cuts: Sequence[_Cut], config: dict[str, Any], target: Path) -> None:
    """Everything into a folder beside the target, which is then renamed."""
    try:
        with unfinished(target.parent) as made:
            made.mkdir()
            (made / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            with (made / WEIGHTS).open("wb") as stream:
                _write_weights(stream, adapter, cuts)
                stream.flush()
                os.fsync(stream.fileno())
            if exists(target):
                target.rmdir()  # empty, as checked before
            made.rename(target)
    except OSError as error:
        raise InvalidInputError(f"{target} cannot be written: {error.strerror or type(error).__name__}") from error


def _write_weights(stream: IO[bytes], adapter: Adapter, cuts: Sequence[_Cut]) -> None:
    others = [NewTensor(tensor.name, tensor.dtype, tensor.shape) for tensor in adapter.layout.others]
    write_header(stream, [*(tensor for cut in cuts for tensor in _new_tensors(cut)), *others], adapter.file.metadata)
    for cut in cuts:
        for factor in _cut_factors(adapter, cut):
            stream.write(_in_32_bits(factor, cut.pair.module))
    for tensor in adapter.layout.others:
        stream.write(read_bytes(adapter.file, tensor))


def _in_32_bits(factor: Any, module: str) -> bytes:
    np = numpy()
    with np.errstate(over="ignore"):
        written = factor.astype("<f4")
    if not np.isfinite(written).all():
        raise InvalidInputError(f"{module}: what is left of its update is too large for 32 bits")
    return bytes(written.tobytes())


def _new_tensors(cut: _Cut) -> Iterator[NewTensor]:
    pair, held = cut.pair, cut.rank * cut.pair.experts
    yield NewTensor(pair.b.name, DTYPE, (pair.out_features, held, *pair.b.shape[2:]))
    yield NewTensor(pair.a.name, DTYPE, (held, *pair.a.shape[1:]))


def _cut_factors(adapter: Adapter, cut: _Cut) -> tuple[Any, Any]:
    """The new B and A of a pair, in the order in which they are written, experts interleaved as they were."""
    np = numpy()
    a, b = factors(adapter.file, cut.pair)
    new = [_cut_one(b[number], a[number], cut.rank) for number in range(cut.pair.experts)]
    new_b = np.stack([entry[0] for entry in new], axis=-1)  # (out, rank, experts)
    new_a = np.stack([entry[1] for entry in new])  # (experts, rank, in)
    return new_b, new_a


def _cut_one(b: Any, a: Any, rank: int) -> tuple[Any, Any]:
    np = numpy()
    found = roots(b, a)
    if found is None:
        raise InvalidInputError("the adapter changed while it was being read")
    left, values, right = np.linalg.svd(core(found, 1.0))
    kept = values[:rank]
    balance = np.where(kept > 0, 1.0 / np.sqrt(np.where(kept > 0, kept, 1.0)), 0.0)
    new_b = b.astype(np.float64) @ (found.ra.T @ right[:rank].T * balance)
    new_a = (balance[:, None] * (left[:, :rank].T @ found.rb)) @ a.astype(np.float64)
    return new_b, new_a
