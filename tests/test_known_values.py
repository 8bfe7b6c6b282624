"""Shapes that depend on values which a dry run knows: the same programs on meta tensors and for real."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

pytest.importorskip("torch")

import torch

from advisor.dryrun.answers import told_in_python
from advisor.dryrun.recorder import Recorder

Program = Callable[[Any], Any]


def in_place(mask: Any) -> Any:
    """A window of the mask is cleared, and then the rows that are left are counted."""
    kept = mask.clone()
    kept[:, 1:3] = 0
    kept[:, -1].fill_(1)
    return kept.nonzero()


def into_new(mask: Any) -> Any:
    """What is copied into empty memory is known there."""
    copied = torch.empty(mask.shape, dtype=mask.dtype, device=mask.device)
    copied.copy_(mask)
    return copied.sum(-1).tolist()


def packed(mask: Any) -> Any:
    """Lengths of rows, as attention over packed sequences counts them."""
    lengths = mask.sum(-1, dtype=torch.int32)
    bounds = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    return bounds.tolist()


def row_by_row(mask: Any) -> Any:
    return [torch.where(row > 0)[0] for row in mask]


def named(mask: Any) -> str:
    return f"{mask.sum()}"


PROGRAMS: dict[str, Program] = {
    "nonzero": lambda mask: mask.nonzero(),
    "nonzero of a view": lambda mask: mask.t()[2:].nonzero(),
    "rows by a mask": lambda mask: torch.arange(mask.numel(), device=mask.device).view_as(mask)[mask > 0],
    "rows by a mask of one axis": lambda mask: mask[:, mask.any(0)],
    "rows by a mask and an index": lambda mask: mask[mask.any(1), 0],
    "masked_select": lambda mask: mask.masked_select(mask.bool()),
    "where of a comparison": lambda mask: torch.where(mask.cumsum(-1) > 1),
    "repeat_interleave": lambda mask: torch.arange(mask.shape[0], device=mask.device).repeat_interleave(mask.sum(-1)),
    "bincount": lambda mask: mask.flatten().bincount(minlength=4),
    "unique": lambda mask: mask.flatten().unique(return_counts=True),
    "unique_consecutive": lambda mask: mask.flatten().unique_consecutive(return_counts=True),
    "sort of what is known": lambda mask: mask.flatten().sort(descending=True)[1][: int(mask.sum())],
    "item": lambda mask: torch.zeros(int(mask.sum()), int((1 - mask).sum())),
    "tolist": lambda mask: mask.tolist(),
    "of numbers alone": lambda mask: torch.triu_indices(3, 3, device=mask.device)[0].nonzero(),
    "like another": lambda mask: torch.full_like(mask, 2).cumsum(-1).gt(2).nonzero(),
    "one hot": lambda mask: torch.nn.functional.one_hot(mask, 3).permute(2, 1, 0)[1].nonzero(),
    "a list beside it": lambda mask: (mask + torch.tensor([1, 0, 0, 0, 2], device=mask.device)).nonzero(),
    "in place": in_place,
    "copied": into_new,
    "packed": packed,
    "row by row": row_by_row,
    "in a name": named,
}
MASK = [[1, 1, 1, 0, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 1]]


def run_on_meta(program: Program, mask: Any) -> tuple[Any, Recorder]:
    recorder = Recorder("meta")
    given_mask = torch.empty(mask.shape, dtype=mask.dtype, device="meta")
    recorder.known.say(given_mask, mask.clone)
    with recorder, told_in_python(recorder.known):
        found = program(given_mask)
    return found, recorder


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_follows_of_a_mask_is_what_it_is_for_real(name: str) -> None:
    mask = torch.tensor(MASK)
    expected = PROGRAMS[name](mask)
    found, recorder = run_on_meta(PROGRAMS[name], mask)
    assert type(found) is type(expected)
    pairs = zip(found, expected, strict=True) if isinstance(expected, (tuple, list)) else [(found, expected)]
    for one, real in pairs:
        if not isinstance(real, torch.Tensor):
            assert one == real
            continue
        assert (one.shape, one.dtype) == (real.shape, real.dtype)
        held = recorder.known.of(one)
        assert held is not None
        assert held.equal(real)


UNKNOWN: dict[str, Program] = {
    "of a weight": lambda mask: (mask * torch.empty(5, device="meta")).nonzero(),
    "of something random": lambda mask: torch.rand_like(mask, dtype=torch.float32).gt(0.5).nonzero(),
    "overwritten in part": lambda mask: mask.index_put_((mask.new_zeros(1),), torch.empty(5, dtype=torch.int64, device="meta")).nonzero(),
    "overwritten": lambda mask: mask.copy_(torch.empty(3, 5, device="meta")).nonzero(),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_follows_of_something_unknown_is_unknown(name: str) -> None:
    with pytest.raises(NotImplementedError):
        run_on_meta(UNKNOWN[name], torch.tensor(MASK))


def test_values_that_are_never_asked_for_are_never_made() -> None:
    asked = []
    recorder = Recorder("meta")
    mask = torch.empty(3, 5, dtype=torch.int64, device="meta")
    recorder.known.say(mask, lambda: asked.append("mask") or torch.tensor(MASK))
    with recorder:
        kept = mask.cumsum(-1) > 1
    assert not asked
    with recorder:
        kept.nonzero()
    assert asked == ["mask"]


@given(tokens=st.integers(1, 40), experts=st.integers(1, 16), data=st.data())
def test_a_router_spreads_its_tokens_evenly(tokens: int, experts: int, data: st.DataObject) -> None:
    each = data.draw(st.integers(1, experts))
    recorder = Recorder("meta")
    with recorder:
        chosen = torch.empty(tokens, experts, device="meta").topk(each, dim=-1)[1]
        held = recorder.known.of(chosen)
    assert held is not None
    assert recorder.known.spread
    counts = Counter(held.flatten().tolist())
    assert all(len(set(row)) == each for row in held.tolist())
    assert max(counts.values()) - min(counts[number] for number in range(experts)) <= 1


@pytest.mark.parametrize("choose", [lambda scores: scores.argmax(-1), lambda scores: scores.max(0)[1], lambda scores: scores.sort(-1)[1]])
def test_choices_by_scores_are_of_the_classes(choose: Program) -> None:
    scores = torch.rand(6, 4)
    recorder = Recorder("meta")
    with recorder:
        found = choose(torch.empty(6, 4, device="meta"))
        held = recorder.known.of(found)
    expected = choose(scores)
    assert held is not None
    assert held.shape == expected.shape
    assert set(held.flatten().tolist()) <= set(range(6))
    assert 0 <= int(held.min()) <= int(held.max()) < (6 if expected.shape == (4,) else 4)
