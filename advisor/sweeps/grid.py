"""Read a sweep: options of `advise estimate`, each with one value or several, and every combination of them.

    model: [llama-3.1-8b, qwen2.5-7b]
    gpu: [rtx 4090, h100]
    gpus: [1, 8]
    shard: [ddp, fsdp2]
    method: [lora, qlora]
    seq_len: {from: 512, to: 8192, step: 512}
    batch_size: [1, 2, 4]

Several grids are a list of such mappings. One card shares nothing: with one, `shard` is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from advisor.bounded import named, read_text
from advisor.errors import InvalidInputError
from advisor.inputs import as_gpu, as_model, as_request
from advisor.ladder.request import OF_THE_HOST
from advisor.refusals import did_you_mean
from advisor.values import GpuSpec, ModelSpec, Request
from advisor.yaml_files import LARGEST_BYTES, parse_yaml

SHAPE = ("batch_size", "seq_len", "grad_accum")
"""Axes that leave a plan of its kind; the others make kinds. The last one changes fastest."""
MOST_ROWS = 1_000_000_000
"""Judgement: ten gigabytes of Parquet, an hour of two cores."""
MOST_KINDS = 100_000
"""Judgement: each takes some milliseconds before its first row."""

MOST_VALUES = 1_000_000
"""Of one option; judgement."""

_BOUNDS = {"from", "to", "step"}
_WITH_SPAN = (*SHAPE, "gpus", "rank")
_NAMES = ("model", "gpu", *Request.model_fields)
_LEFT_OUT = ("dataset_tokens", "epochs", "price", "task", "eval_items", "budget")
"""Options that change no byte."""


class Kind(NamedTuple):
    """One combination of everything but the batch's shape, and the shapes that it is priced for."""

    model: ModelSpec
    gpu: GpuSpec
    options: Mapping[str, Any]
    """As they were given and are not part of the shape, by name."""
    request: Request
    batch_sizes: tuple[int | None, ...]
    seq_lens: tuple[int | None, ...]
    grad_accums: tuple[int | None, ...]
    """None where nobody says: the stack's default then, as in `advise estimate`."""

    @property
    def rows(self) -> int:
        return len(self.batch_sizes) * len(self.seq_lens) * len(self.grad_accums)


def read_sweep(path: Path) -> tuple[Kind, ...]:
    """The kinds of a file, in its order. Raises InvalidInputError, one line that names the option, for what cannot be used, and as
    `advise estimate` for models and cards."""
    where = named(path)
    value, twice = parse_yaml(read_text(path, LARGEST_BYTES, "sweep"), where)
    if twice:
        raise InvalidInputError(f"{where}: {twice[0]} stands twice; several grids are a list")
    grids = value if isinstance(value, list) else [value]
    if not grids or not all(isinstance(grid, dict) and grid for grid in grids):
        raise InvalidInputError(f"{where} is no sweep: write options with their values, such as model: [llama-3.1-8b]")
    load_model, load_card = _remembering(as_model), _remembering(lambda name: as_gpu(name, use_calibrations=False))
    kinds = [kind for grid in grids for kind in _kinds(_axes(grid, where), load_model, load_card)]
    _check_size(kinds, where)
    return tuple(kinds)


def _check_size(kinds: list[Kind], where: str) -> None:
    rows = sum(kind.rows for kind in kinds)
    if len(kinds) > MOST_KINDS or rows > MOST_ROWS:
        raise InvalidInputError(
            f"{where}: {len(kinds):,} kinds of plans with {rows:,} shapes; at most {MOST_KINDS:,} and {MOST_ROWS:,} are priced in one sweep"
        )


def _remembering(load: Callable[[str], Any]) -> Callable[[str], Any]:
    known: dict[str, Any] = {}

    def loaded(name: str) -> Any:
        if name not in known:
            known[name] = load(name)
        return known[name]

    return loaded


def _axes(grid: dict[Any, Any], where: str) -> dict[str, tuple[Any, ...]]:
    """Option → its values, validated one by one."""
    axes: dict[str, tuple[Any, ...]] = {}
    for name, value in grid.items():
        if name not in _NAMES or name in _LEFT_OUT:
            raise InvalidInputError(f"{where}: {str(name)[:60]}: a sweep has no such option{did_you_mean(str(name), _NAMES)}")
        axes[name] = _span(name, value, where) if isinstance(value, dict) else tuple(_values(name, value, where))
        if not axes[name]:
            raise InvalidInputError(f"{where}: {name}: there is no value")
    for name in ("model", "gpu"):
        if name not in axes:
            raise InvalidInputError(f"{where}: {name} is missing; for example {name}: [{'llama-3.1-8b' if name == 'model' else '24GB'}]")
    return axes


def _span(name: str, value: dict[Any, Any], where: str) -> tuple[int, ...]:
    """Whole numbers from one to another, both inside."""
    if name not in _WITH_SPAN:
        raise InvalidInputError(f"{where}: {name}: only {', '.join(_WITH_SPAN)} have a span; list the values")
    if set(value) != _BOUNDS or not all(isinstance(bound, int) and not isinstance(bound, bool) and bound > 0 for bound in value.values()):
        raise InvalidInputError(f"{where}: {name}: a span is written {{from: 512, to: 8192, step: 512}}, of whole numbers")
    span = range(value["from"], value["to"] + 1, value["step"])
    if len(span) > MOST_VALUES:
        raise InvalidInputError(f"{where}: {name}: {len(span):,} values; at most {MOST_VALUES:,} are priced in one sweep")
    for end in (*span[:1], *span[-1:]):
        _option(name, end, where)
    return tuple(span)


def _values(name: str, value: Any, where: str) -> Iterator[Any]:
    for each in value if isinstance(value, list) else [value]:
        if each is None or isinstance(each, (list, dict)):
            raise InvalidInputError(f"{where}: {name}: write one value, or a list of values")
        yield str(each) if name in ("model", "gpu") else _option(name, each, where)


def _option(name: str, value: Any, where: str) -> Any:
    """The value as a request holds it."""
    if name in OF_THE_HOST:
        raise InvalidInputError(f"{where}: {name}: a sweep does not look at the host; ask advise estimate")
    try:
        return getattr(as_request({name: value}), name)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {str(error).removeprefix('--')}") from None


def _kinds(axes: dict[str, tuple[Any, ...]], load_model: Callable[[str], Any], load_card: Callable[[str], Any]) -> Iterator[Kind]:
    own = [name for name in axes if name not in SHAPE]
    shapes = tuple(axes.get(name, (None,)) for name in SHAPE)
    seen = set()
    for values in product(*(axes[name] for name in own)):
        options = dict(zip(own, values, strict=True))
        model, gpu = load_model(options.pop("model")), load_card(options.pop("gpu"))
        if options.get("gpus", gpu.gpus_of_machine) == 1:
            for name in ("shard", "offload", "shard_group", "sync_each_batch"):
                options.pop(name, None)
        key = (model.id, gpu.name, gpu.usable_bytes, *options.items())
        if key not in seen:
            seen.add(key)
            yield Kind(model, gpu, options, as_request(options, gpu), *shapes)
