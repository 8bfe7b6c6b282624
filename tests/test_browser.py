"""The page and the report in a real browser: Debian's Chromium, headless, through Playwright.

They draw without an error, follow every change and the keyboard, and break no rule of axe-core in light or dark, from a telephone's width
to a wide screen's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import advisor

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytest.importorskip("playwright", reason="needs playwright")
pytest.importorskip("starlette", reason="needs the extra `ui`")
pytest.importorskip("vl_convert", reason="needs the extra `report`")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium (Debian: apt-get install chromium)")

NARROW = 375
LOOKS = ((NARROW, "light"), (NARROW, "dark"), (1024, "light"), (1920, "dark"))
VIEWS = ("answer", "terms", "figures", "cards", "all", "files")
LONGEST_WAIT_MS = 60_000
"""Judgement: two busy cores; every wait ends as soon as what it waits for is there."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a command that runs."""
    command = [sys.executable, "-m", "advisor", "ui", "--no-browser", "--model", "llama-3.2-1b", "--gpu", "t4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


class Tab:
    """A page of the browser, and what it complained of."""

    def __init__(self, browser: Any, address: str, width: int = 1024, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(LONGEST_WAIT_MS)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def said(self, sentence: str) -> None:
        """Wait until the page says this."""
        from playwright.sync_api import expect

        expect(self.page.locator("#said")).to_contain_text(sentence, timeout=LONGEST_WAIT_MS)

    def show(self, view: str) -> None:
        """Choose a view, and wait for its answer."""
        with self.page.expect_response(lambda response: f"show={view}" in response.url):
            self.page.locator(f"input[name=show][value={view}]").check(force=True)
        self.page.wait_for_function("() => !document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling')")

    def violations(self) -> list[str]:
        """What axe-core finds wrong, a rule and its first place a line."""
        self.page.evaluate(_axe())
        found = self.page.evaluate("() => axe.run()")["violations"]
        return [f"{rule['id']}: {rule['nodes'][0]['html'][:120]} ({rule['nodes'][0]['failureSummary'][:300]})" for rule in found]

    def close(self) -> None:
        self.context.close()


@cache
def _axe() -> str:
    """The script of axe-core, as its Python package carries it."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def overflow(tab: Tab) -> int:
    """Pixels by which the page is wider than the screen."""
    return int(tab.page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth"))


def verdict(**options: Any) -> str:
    return advisor.advise("llama-3.2-1b", "t4", **options).verdict.sentence


# ------------------------------------------------------------------------------------------------------ the page


@pytest.fixture
def tab(chromium: Any, address: str) -> Iterator[Tab]:
    opened = Tab(chromium, address)
    yield opened
    opened.close()


def test_every_change_is_answered_and_stands_in_the_address(tab: Tab) -> None:
    page = tab.page
    tab.said(verdict())
    page.get_by_label("method").select_option("qlora")
    tab.said(verdict(method="qlora"))
    page.get_by_label("seq len").fill("16k")
    page.get_by_label("batch size").fill("4")
    tab.said(verdict(method="qlora", seq_len="16k", batch_size=4))
    page.wait_for_url("**method=qlora**batch_size=4**seq_len=16k**")
    page.reload()
    tab.said(verdict(method="qlora", seq_len="16k", batch_size=4))
    assert page.get_by_label("seq len").input_value() == "16k"
    assert tab.complaints == []


def test_what_is_wrong_is_said_and_mended(tab: Tab) -> None:
    tab.page.get_by_label("rank").fill("<img src=x onerror=alert(1)>")
    tab.said("error: --rank <img src=x onerror=alert(1)>: must be a valid integer")
    assert tab.page.locator("#answer").inner_text() == ""
    assert tab.page.locator("#said img").count() == 0
    tab.page.get_by_label("rank").fill("8")
    tab.said(verdict(rank=8))
    assert [text for text in tab.complaints if "422 (Unprocessable" not in text] == [], "Chromium itself logs every 4xx"


def test_the_keyboard_reaches_everything(tab: Tab) -> None:
    page = tab.page
    tab.said(verdict())
    page.get_by_label("model", exact=True).focus()
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.name") == "gpu"
    page.locator("input[name=show]:checked").focus()
    with page.expect_response(lambda response: "show=terms" in response.url):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('#answer').textContent.includes('QDoRA: ')")
    page.get_by_text("Method and adapter").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.name") == "alpha"
    page.get_by_label("rank").focus()
    page.keyboard.type("32")
    page.keyboard.press("Enter")
    tab.said(verdict(rank=32))
    assert tab.complaints == []


def test_what_can_be_kept_is_downloaded(tab: Tab) -> None:
    tab.show("files")
    with tab.page.expect_download() as download:
        tab.page.get_by_text("The plan for trl").click()
    assert download.value.suggested_filename == "llama-3-2-1b-trl.yaml"
    assert tab.complaints == []


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.sampled(2)
def test_the_page_is_right_at_every_width(width: int, scheme: str, chromium: Any, address: str) -> None:
    tab = Tab(chromium, address, width, scheme)
    found = {"answer": (tab.violations(), overflow(tab))}
    for view in VIEWS[1:] if width == NARROW else VIEWS[1:2]:
        tab.show(view)
        found[view] = (tab.violations(), overflow(tab))
    assert found == dict.fromkeys(found, ([], 0))
    assert tab.complaints == []
    tab.close()


def test_it_says_so_when_its_program_has_ended(tab: Tab) -> None:
    tab.said(verdict())
    tab.context.set_offline(True)
    tab.page.get_by_label("rank").fill("64")
    tab.said("error: nothing answers here any more; start `advise ui` again")


# ------------------------------------------------------------------------------------------------------ the report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    from advisor.cli.run import run

    path = tmp_path_factory.mktemp("report") / "report.html"
    assert run(["llama-3.1-8b", "t4", "--html", str(path)]) == 0
    return path.as_uri()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.sampled(2)
def test_the_report_is_right_at_every_width(width: int, scheme: str, chromium: Any, report: str) -> None:
    tab = Tab(chromium, report, width, scheme)
    for folded in tab.page.locator("summary").all():
        folded.click()
    assert (tab.violations(), overflow(tab), tab.complaints) == ([], 0, [])
    tab.close()


def test_the_report_switches_rung_and_length(chromium: Any, report: str) -> None:
    tab = Tab(chromium, report)
    shown = tab.page.locator(".explore .at:visible")
    assert shown.inner_text().startswith("QLoRA, 2,048 tokens: ")
    tab.page.locator(".explore input[name=rung]:checked").focus()
    tab.page.keyboard.press("ArrowRight")
    tab.page.locator(".explore").get_by_label("1,024").check(force=True)
    assert shown.inner_text().startswith("DoRA, 1,024 tokens: ")
    assert tab.page.locator("figure title").count() > 20, "numbers under the pointer"
    assert tab.complaints == []
    tab.close()
