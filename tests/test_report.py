"""The answer as one file: figures that say what the tables say, nothing fetched, nothing of a user's text read as a tag."""

from __future__ import annotations

import re
import sys
from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

import pytest
from test_html import HOSTILE, Checked

import advisor
from advisor import Advice, GpuSpec
from advisor.cli.run import run
from advisor.inputs import as_gpu, as_model
from advisor.ladder.knowledge import fact
from advisor.memory import estimate_memory
from advisor.series import FURTHER, MOST_INSTANTS, _thinned, series_of, timeline_of
from advisor.units import gib
from advisor.values import ModelSpec, Phase, Plan

LARGEST_BYTES = 1_000_000
VISION = "qwen2.5-vl-7b"


@cache
def asked(model: str = "llama-3.1-8b", gpu: str = "t4") -> Advice:
    return advisor.advise(model, gpu)


# ------------------------------------------------------------------------------------------------------ the numbers


def test_curves_are_what_advise_estimate_says() -> None:
    answer, model = asked(), as_model("llama-3.1-8b")
    series = series_of(answer, model)
    assert [curve.method for curve in series.curves] == [rung.plan.method for rung in answer.rungs]
    for rung, curve in zip(answer.rungs, series.curves, strict=True):
        at_plan = next(point for point in curve.points if point.tokens == rung.plan.seq_len_tokens)
        assert at_plan[1:4] == (rung.memory.low_bytes, rung.memory.expected_bytes, rung.memory.high_bytes)
        middle = curve.points[len(curve.points) // 2]
        longer = rung.plan.model_copy(update={"seq_len_tokens": middle.tokens})
        assert middle.high_bytes == estimate_memory(model, longer, answer.gpu).high_bytes
        assert [point.tokens for point in curve.points] == sorted({point.tokens for point in curve.points})


def test_curves_go_beyond_the_longest_that_fits_and_not_beyond_the_model() -> None:
    answer = asked()
    model = as_model("llama-3.1-8b").model_copy(update={"max_position_tokens": 3000})
    longest = max(rung.max_seq_len_tokens or 0 for rung in answer.rungs)
    assert series_of(answer, as_model("llama-3.1-8b")).curves[0].points[-1].tokens == FURTHER * longest
    assert series_of(answer, model).curves[0].points[-1].tokens == 3000


def test_a_model_whose_steps_are_recorded_has_no_curves_and_a_timeline_to_its_peak() -> None:
    model, gpu = as_model(VISION), as_gpu("4090")
    plan = _shipped_plan(model, gpu)
    memory = estimate_memory(model, plan, gpu)
    timeline = timeline_of(model, plan, gpu)
    top = max(timeline, key=lambda instant: instant.alive_bytes)
    assert top.phase is memory.peak_phase
    assert memory.peak_allocated_bytes * 0.97 <= top.alive_bytes <= memory.peak_allocated_bytes, "blocks are rounded up, tensors are not"
    assert len(timeline) <= MOST_INSTANTS + 2


def _shipped_plan(model: ModelSpec, gpu: GpuSpec) -> Plan:
    from advisor.inputs import plan_for

    return plan_for(model, gpu, {"method": "qlora", "kbit_prepare": False})


def test_thinning_keeps_the_highest_and_the_lowest_moment() -> None:
    alive = [3 * (number % 97) for number in range(5000)]
    alive[1234], alive[4321] = 10**6, -1
    thin = _thinned(alive, [Phase.FORWARD] * len(alive))
    assert (1234, 10**6) in [(instant.event, instant.alive_bytes) for instant in thin]
    assert (4321, -1) in [(instant.event, instant.alive_bytes) for instant in thin]
    assert [instant.event for instant in thin] == sorted({instant.event for instant in thin})


# ------------------------------------------------------------------------------------------------------ the file

NEED_FIGURES = pytest.mark.skipif(find_spec("vl_convert") is None, reason="needs the extra `report`")


@cache
def page(gpu: str = "t4") -> str:
    from advisor.render.report import advice_report

    return advice_report(asked(gpu=gpu), series_of(asked(gpu=gpu), as_model("llama-3.1-8b")))


@NEED_FIGURES
@pytest.mark.parametrize("gpu", ["t4", "8GB"])
def test_a_page_is_well_formed_small_and_fetches_nothing(gpu: str) -> None:
    drawn = Checked(page(gpu))
    assert len(page(gpu).encode()) < LARGEST_BYTES
    assert {"script", "link", "img", "iframe", "object", "foreignobject"}.isdisjoint(drawn.tags)
    assert all(link.startswith("https://") for link in drawn.links)
    assert not re.search(r"url\((?!#)|@import", page(gpu))
    ids = re.findall(r' id="([^"]*)"', page(gpu))
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", page(gpu))) <= set(ids)


@NEED_FIGURES
@pytest.mark.parametrize("gpu", ["t4", "8GB"])
def test_a_page_says_all_that_the_answer_does(gpu: str) -> None:
    answer, said = asked(gpu=gpu), Checked(page(gpu)).text
    told = [answer.verdict.sentence, answer.command, answer.next_experiment, *answer.assumptions, *answer.would_change]
    told += [answer.gpu.usable_source, answer.model.source, advisor.__version__, *(rung.memory.interval.source for rung in answer.rungs)]
    told += [finding.message for finding in answer.findings]
    told += [fact(name).statement for rung in answer.rungs for name in rung.quality_evidence]
    assert [text for text in told if " ".join(text.split()) not in said] == []
    assert said.index(answer.verdict.sentence) < said.index(answer.assumptions[0])


@NEED_FIGURES
def test_figures_have_a_text_and_numbers_under_the_pointer() -> None:
    drawn = page()
    assert len(re.findall(r'<svg role="img" aria-label="[^"]{40,}"', drawn)) == 2
    for rung in asked().rungs:
        weights = next(term.bytes for term in rung.memory.terms if term.term.value == "weights")
        assert f"<title>{rung.plan.method.label}, weights: {weights / 2**30:.1f} GiB</title>" in drawn


@NEED_FIGURES
def test_every_rung_at_every_length_is_there_to_be_chosen() -> None:
    drawn, model = page(), as_model("llama-3.1-8b")
    curves = series_of(asked(), model).curves
    lengths = sorted({point.tokens for curve in curves for point in curve.points})
    for number, rung in enumerate(asked().rungs):
        for place, tokens in enumerate(lengths):
            panel = drawn.partition(f'<div class="at at-{number}-{place}">')[2].partition("</div>")[0]
            memory = estimate_memory(model, rung.plan.model_copy(update={"seq_len_tokens": tokens}), asked().gpu)
            assert f"{rung.plan.method.label}, {tokens:,} tokens: " in panel
            assert f"between {gib(memory.low_bytes)} GiB and {gib(memory.high_bytes)} GiB, of 14.6 GiB" in panel
            assert f":has(.rung-{number}:checked):has(.length-{place}:checked) .at-{number}-{place}" in drawn
    chosen = re.findall(r'class="(\w+-\d+)" checked><span>([^<]*)', drawn)
    assert [label for _, label in chosen] == [asked().focus.plan.method.label, f"{asked().focus.plan.seq_len_tokens:,}"]


@NEED_FIGURES
def test_a_page_may_use_its_own_sheet_and_nothing_else() -> None:
    drawn = page()
    style = re.search(r"<style>(.*?)</style>", drawn, re.DOTALL)
    assert style is not None
    digest = b64encode(sha256(style[1].encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; style-src-attr 'unsafe-inline'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in drawn
    assert drawn.count("<style") == 1


@NEED_FIGURES
def test_what_a_user_gives_is_text_and_nothing_else() -> None:
    from advisor.render.report import advice_report

    card = GpuSpec(name=HOSTILE, vendor=HOSTILE, usable_bytes=23 * 2**30, usable_source=HOSTILE, sources=(HOSTILE,), notes=(HOSTILE,))
    model = as_model("llama-3.2-1b").model_copy(update={"id": HOSTILE, "source": HOSTILE})
    answer = advisor.advise(model, card, target_modules="q_proj")
    drawn = Checked(advice_report(answer, series_of(answer, model)))
    assert "script" not in drawn.tags
    assert drawn.text.count("<script>alert(1)</script>") >= 6


@NEED_FIGURES
def test_html_writes_the_page_beside_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.html"
    path.write_text("an older report", encoding="utf-8")
    assert run(["llama-3.1-8b", "t4", "--html", str(path)]) == 0
    out = capsys.readouterr().out
    assert asked().verdict.sentence in Checked(path.read_text(encoding="utf-8")).text
    assert out.endswith(f"report: {path}\n")
    assert [*tmp_path.iterdir()] == [path]


# (where, what is said)
REFUSED = [
    (["--html", "report.txt"], "--html report.txt: name a file that ends in .html"),
    (["--html", "."], "--html .: name a file that ends in .html"),
    (["--html", "none/report.html"], "--html none/report.html cannot be written: there is no folder none"),
    (["--html", "report.html", "--trace"], "--html is of one answer for one card: give one --gpu, and neither --calibrate nor a dry run"),
    (
        ["--html", "report.html", "--gpu", "l4"],
        "--html is of one answer for one card: give one --gpu, and neither --calibrate nor a dry run",
    ),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_where_no_page_can_be_is_refused(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["--model", "llama-3.1-8b", "--gpu", "t4", *options]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"
    assert [*tmp_path.iterdir()] == []


def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert run(["llama-3.1-8b", "t4", "--html", str(tmp_path / "report.html")]) == 2
    assert capsys.readouterr().err == "error: a report's figures need vl-convert: pip install 'finetune-advisor[report]'\n"
    assert [*tmp_path.iterdir()] == []


CONFIG = "model_name_or_path: meta-llama/Llama-3.2-1B\nfinetuning_type: lora\nstage: sft\ndo_train: true\n"
# (command, what the page's title says)
PAGES = [
    ("estimate --model llama-3.2-1b --method lora --gpu t4", "meta-llama/Llama-3.2-1B by LoRA"),
    ("fit --model llama-3.2-1b --method lora --gpu t4 --seq-len max", "What fits"),
    ("next --model llama-3.2-1b --gpu t4", "The next step"),
    ("check run.yaml --gpu t4", "Check of run.yaml"),
]


@pytest.mark.parametrize(("command", "title"), PAGES)
def test_other_answers_are_pages_too(
    command: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(CONFIG, encoding="utf-8")
    plain = run(command.split())
    screen = capsys.readouterr().out
    assert run([*command.split(), "--html", "page.html"]) == plain
    assert capsys.readouterr().out == screen
    drawn = Checked(Path("page.html").read_text(encoding="utf-8"))
    verdict = " ".join(re.split(r"\n\s*\n", screen.strip())[-1].split())
    assert f"{title} " in drawn.text
    assert verdict.removeprefix("Next step ") in drawn.text
    assert "script" not in drawn.tags


def test_the_options_of_the_signature_are_the_fields_of_a_request() -> None:
    """Each takes the field's own type (in its numbers, a text too), or None."""
    from typing import get_type_hints

    from advisor.values.options import Options
    from advisor.values.request import Request

    hints, fields = get_type_hints(Options), Request.model_fields
    assert list(hints) == list(fields)
    for name, field in fields.items():
        own = _plain(field.annotation)
        lists = {Iterable if kind is tuple else kind for kind in own} if name in ("target_modules", "offload") else own
        assert _plain(hints[name]) == lists | (set() if bool in own else {str}), name


def _plain(annotation: object) -> set[object]:
    """The types of a union, without what stands in their brackets."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    found: set[object] = set()
    for part in parts:
        inner = get_args(part)[0] if get_origin(part) is Annotated else part
        found |= _plain(inner) if get_origin(inner) in (Union, UnionType) else {get_origin(inner) or inner}
    return found


def test_models_and_cards_are_listed() -> None:
    assert "meta-llama/Llama-3.1-8B" in {row.id for row in advisor.models("llama-3.1-8b")}
    assert {card.name for card in advisor.gpus("tesla t4")} == {"Tesla T4"}
    assert len(advisor.models()) > 100
    assert len(advisor.gpus()) > 50
