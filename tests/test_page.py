"""The page of `advise ui`: who may ask it, what it answers, what it refuses in one line, and that it reads no file."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from html import escape
from typing import Any
from urllib.parse import parse_qsl, urlencode
from urllib.request import Request, urlopen

import pytest
from hypothesis import given, settings, strategies as st
from test_html import HOSTILE, Checked

import advisor
from advisor.cli.run import run
from advisor.cli.ui_commands import _fields
from advisor.page.question import MOST_CARDS, VIEWS, Question, read_question
from advisor.values import Request as Options

pytest.importorskip("starlette", reason="needs the extra `ui`")

from starlette.testclient import TestClient

from advisor.page.answers import FILES, WRITTEN, reply
from advisor.page.app import KINDS, Page
from advisor.page.door import HEADERS, Door
from advisor.page.pool import MOST_WAITING, BusyError, Pool

TOKEN, PORT = "the-token-of-this-run", 8765
HOME = f"http://127.0.0.1:{PORT}"
FIELDS = tuple(_fields())
EXAMPLE = {"model": "llama-3.1-8b", "gpu": "t4"}


@cache
def door() -> Door:
    return Door(Page(FIELDS, Pool(lambda: ThreadPoolExecutor(1))).app(), TOKEN, PORT)


def client(*, known: bool = True) -> TestClient:
    """A browser; a `known` one has the cookie."""
    return TestClient(door(), base_url=HOME, cookies={door().cookie: TOKEN} if known else {}, follow_redirects=False)


# ------------------------------------------------------------------------------------------------------ who may ask


def test_the_token_of_the_address_becomes_a_cookie() -> None:
    browser = client(known=False)
    first = browser.get("/", params={"token": TOKEN, **EXAMPLE})
    assert (first.status_code, first.headers["location"]) == (303, "/?model=llama-3.1-8b&gpu=t4")
    assert re.fullmatch(rf"advise-{PORT}={TOKEN}; HttpOnly; Path=/; SameSite=strict", first.headers["set-cookie"])
    assert browser.get(first.headers["location"]).status_code == 200


# (what is sent beside the cookie, the answer)
SENT: list[tuple[dict[str, str], int]] = [
    ({}, 200),
    ({"host": f"localhost:{PORT}"}, 200),
    ({"origin": HOME, "sec-fetch-site": "same-origin"}, 200),
    ({"sec-fetch-site": "none"}, 200),
    ({"host": "evil.example"}, 403),
    ({"host": f"evil.example:{PORT}"}, 403),
    ({"host": "127.0.0.1"}, 403),
    ({"host": f"127.0.0.1:{PORT + 1}"}, 403),
    ({"host": ""}, 403),
    ({"origin": "http://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": f"https://127.0.0.1:{PORT}"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"sec-fetch-site": "same-site"}, 403),
]


@pytest.mark.parametrize(("headers", "status"), SENT)
@pytest.mark.parametrize("path", ["/", "/answer", "/page.css"])
def test_only_the_readers_own_page_is_answered(path: str, headers: dict[str, str], status: int) -> None:
    answer = client().get(path, headers=headers)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("path", ["/", "/answer", "/file/json", "/page.css", "/htmx.min.js", "/none"])
@pytest.mark.parametrize("cookie", ["", "another", f"{TOKEN}x", "tökén"])
def test_without_the_token_nothing_is_told(path: str, cookie: str) -> None:
    browser = client(known=False)
    answer = browser.get(path, headers={"cookie": f"{door().cookie}={cookie}".encode()})
    assert (answer.status_code, answer.text) == (403, "error: open the address that `advise ui` printed: it holds the token of this run\n")
    assert browser.get(path, params={"token": cookie}).status_code == 403


def test_the_token_opens_the_page_alone() -> None:
    """No address of another place can be reached by way of it."""
    for path in (f"{HOME}//evil.example/", f"{HOME}/answer", f"{HOME}/%2F%2Fevil.example"):
        assert client(known=False).get(path, params={"token": TOKEN}).status_code == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_the_page_is_only_read(method: str) -> None:
    answer = client().request(method, "/answer", params=EXAMPLE)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_the_policy_allows_no_script_and_no_sheet_in_the_page() -> None:
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    page = client().get("/", params=EXAMPLE).text
    assert re.findall(r"<script[^>]*>", page) == ['<script src="/htmx.min.js" defer>', '<script src="/page.js" defer>']
    assert not re.search(r"<style| on\w+=|javascript:", page)


# ------------------------------------------------------------------------------------------------------ answers


@pytest.mark.parametrize("show", [view for view in VIEWS if view != "cards"])
def test_every_view_says_what_advise_says_first(show: str) -> None:
    if show == "figures":
        pytest.importorskip("vl_convert")
    wanted = advisor.advise("llama-3.1-8b", "t4", seq_len=1024)
    answer = client().get("/answer", params={**EXAMPLE, "seq_len": "1k", "show": show})
    assert answer.status_code == 200
    told = Checked(answer.text)
    assert told.text.startswith(wanted.verdict.sentence)
    assert "advise --model llama-3.1-8b --gpu t4 --seq-len 1k" in told.text
    assert wanted.command in told.text
    assert (
        answer.headers["hx-replace-url"] == f"/?model=llama-3.1-8b&gpu=t4&{urlencode({'beside': Question().beside})}&show={show}&seq_len=1k"
    )


def test_cards_side_by_side_are_what_compare_says() -> None:
    answer = client().get("/answer", params={**EXAMPLE, "show": "cards", "beside": "t4, l4"})
    told = Checked(answer.text).text
    assert [name in told for name in ("Tesla T4", "L4", "advise compare llama-3.1-8b --gpu t4 --gpu l4")] == [True] * 3
    assert re.match(r"meta-llama/Llama-3.1-8B: .* is the cheapest here that fits", told)


def test_a_page_without_scripts_holds_the_same_answer_and_question() -> None:
    page = client().get("/", params={**EXAMPLE, "method": "qlora", "padding": "no", "rank": "8"}).text
    verdict = advisor.advise("llama-3.1-8b", "t4", method="qlora", padding=False, rank=8).verdict.sentence
    assert escape(verdict) in page
    for held in ('value="llama-3.1-8b"', "<option selected>qlora</option>", "<option selected>no</option>", 'name="rank" value="8"'):
        assert held in page


def test_every_option_of_a_plan_has_a_field_with_a_label() -> None:
    page = client().get("/").text
    names = re.findall(r'<(?:input|select) id="\w+" name="(\w+)"', page)
    assert set(names) == {"model", "gpu", "beside", *Options.model_fields}
    assert [name for name in names if f'<label for="{name}">' not in page] == []


# (what is asked, the beginning of the one line)
WRONG = [
    ({"model": ""}, "model: needs the name of a known model"),
    ({"gpu": ""}, "gpu: needs a card"),
    ({"model": "llama"}, "model 'llama' fits several: "),
    ({"model": "nonesuch"}, "model 'nonesuch' is not known; "),
    ({"model": "/etc/passwd"}, "model '/etc/passwd' is not known; "),
    ({"model": "../../config.json"}, "model '../../config.json' is not known; "),
    ({"model": "nobody/nothing"}, "model 'nobody/nothing' is not known; "),
    ({"gpu": "nonesuch"}, "no card called 'nonesuch'"),
    ({"gpu": "\0"}, "no card called '\\x00'"),
    ({"rank": "many"}, "--rank many: "),
    ({"rank": "-1"}, "--rank -1: "),
    ({"rank": "9" * 200}, "--rank 999"),
    ({"method": "lara"}, "--method lara: must be "),
    ({"gpus": "1e9"}, "--gpus 1e9: "),
    ({"image_size": "axb"}, "--image-size axb: write width x height"),
    ({"show": "cards", "beside": ""}, f"side by side: name 1 to {MOST_CARDS} cards"),
    ({"show": "cards", "beside": "t4," * 50}, f"side by side: name 1 to {MOST_CARDS} cards"),
    ({"show": "cards", "beside": "nonesuch"}, "no card called 'nonesuch'"),
]
UNREADABLE = [
    ({"padding": "perhaps"}, "padding perhaps: must be yes or no"),
    ({"show": "secrets"}, "show secrets: must be one of answer, "),
    ({"modle": "x"}, "modle: there is no such field; did you mean model?"),
    ({"model": "x" * 201}, "model: longer than 200 characters"),
    ({"use_calibrations": "no"}, "use_calibrations: there is no such field"),
    ({"record": "yes"}, "record: there is no such field"),
]


@pytest.mark.parametrize(
    ("given", "said", "status"), [*((one, said, 422) for one, said in WRONG), *((one, said, 400) for one, said in UNREADABLE)]
)
@pytest.mark.parametrize("path", ["/answer", "/file/json"])
def test_what_is_wrong_is_one_line(path: str, given: dict[str, str], said: str, status: int) -> None:
    if path == "/file/json" and "beside" in given:
        pytest.skip("a file is of one card")
    answer = client().get(path, params={**EXAMPLE, **given})
    told = Checked(answer.text).text if path == "/answer" else answer.text.strip()
    assert answer.status_code == status
    assert told.startswith(f"error: {said}")
    assert "\n" not in told
    assert len(told) <= 700


def test_a_field_given_twice_and_an_address_too_long_are_refused() -> None:
    assert client().get("/answer?rank=8&rank=16").status_code == 400
    assert client().get("/answer", params={"model": "x" * 5000}).status_code == 414


@pytest.mark.parametrize(
    "path", ["/none", "/static/page.css", "/../pyproject.toml", "/%2e%2e/pyproject.toml", "/file/", "/file/exe", "/answer/"]
)
def test_other_addresses_are_absent(path: str) -> None:
    assert client().get(path).status_code == 404


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from([*Options.model_fields, "model", "gpu", "beside", "show"]) | st.text(max_size=8), st.text(max_size=30), max_size=4
    )
)
def test_whatever_is_asked_is_answered_or_refused(given: dict[str, str]) -> None:
    query = urlencode(given, errors="surrogatepass")
    assert client().get(f"/answer?{query}").status_code in (200, 400, 422)


# ------------------------------------------------------------------------------------------------------ hostile names and paths


@pytest.mark.parametrize("name", ["model", "gpu", "beside", "show", *Options.model_fields, HOSTILE])
@pytest.mark.parametrize("path", ["/", "/answer"])
def test_what_a_user_writes_is_text_and_nothing_else(path: str, name: str) -> None:
    show = {"show": "cards"} if name == "beside" else {}
    answer = client().get(path, params={**EXAMPLE, **show, name: HOSTILE})
    assert answer.status_code in (400, 422)
    assert "<script>alert" not in answer.text
    assert not re.search("[\x1b\u202e]", re.sub(r'value="[^"]*"', "", answer.text))
    if path == "/answer":
        assert "script" not in Checked(answer.text).tags


def test_what_a_user_writes_is_text_in_an_answer_too() -> None:
    """A command and a link hold what was asked, as it was written."""
    asked = {**EXAMPLE, "target_modules": "q_proj", "beside": "t4,<b>'&\""}
    answer = client().get("/answer", params={**asked, "show": "files"})
    told = Checked(answer.text)
    assert answer.status_code == 200
    assert "b" not in told.tags
    assert all(link.startswith(("/file/", "/?")) for link in told.links)
    again = dict(parse_qsl(told.links[-1].partition("?")[2]))
    assert {name: again[name] for name in asked} == asked


def test_no_file_that_is_asked_for_is_opened(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    touched: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:  # an audit hook stays for the life of the process
        if watching and event in ("open", "os.listdir", "os.scandir") and "mine" in str(arguments[0]):
            touched.append(str(arguments[0]))

    sys.addaudithook(watch)
    for model in ("mine", "./mine", "mine/config.json", str(tmp_path / "mine"), f"file://{tmp_path}/mine"):
        for name in ("model", "gpu", "target_modules"):
            client().get("/answer", params={**EXAMPLE, "rank": "8", name: model})
            client().get("/file/trl", params={**EXAMPLE, "rank": "8", name: model})
    watching = False
    assert touched == []


# ------------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_what_the_command_writes(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "html":
        pytest.importorskip("vl_convert")
    answer = client().get(f"/file/{kind}", params={**EXAMPLE, "rank": "8"})
    assert answer.status_code == 200
    assert re.fullmatch(r'attachment; filename="llama-3-1-8b(-\w+)?\.(json|html|yaml|py)"', answer.headers["content-disposition"])
    if kind in [stack.value for stack in WRITTEN]:
        run(f"config --stack {kind} --model meta-llama/Llama-3.1-8B --gpu t4 --rank 8".split())
        assert capsys.readouterr().out == answer.text
    elif kind == "json":
        assert advisor.Advice.model_validate_json(answer.text).verdict == advisor.advise("llama-3.1-8b", "t4", rank=8).verdict
    else:
        assert Checked(answer.text).text.startswith("meta-llama/Llama-3.1-8B on Tesla T4")


def test_where_nothing_fits_there_is_no_plan_to_write() -> None:
    answer = client().get("/file/trl", params={"model": "llama-70b", "gpu": "8GB"})
    assert (answer.status_code, answer.text.partition(":")[0]) == (422, "error")
    assert "/file/trl" not in client().get("/answer", params={"model": "llama-70b", "gpu": "8GB", "show": "files"}).text


def test_what_lies_beside_the_page_is_handed_out_by_name() -> None:
    for name, kind in KINDS.items():
        answer = client().get(f"/{name}")
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)


# ------------------------------------------------------------------------------------------------------ questions

WRITTEN_BY_HAND = st.text(st.characters(codec="utf-8"), max_size=20).map(str.strip)
QUESTIONS = st.builds(
    Question,
    model=WRITTEN_BY_HAND,
    gpu=WRITTEN_BY_HAND,
    beside=WRITTEN_BY_HAND,
    show=st.sampled_from([*VIEWS]),
    options=st.sets(st.sampled_from([field for field in FIELDS if not field.choices])).map(
        lambda some: tuple((field.name, "8") for field in FIELDS if field in some)
    ),
)


@given(QUESTIONS)
def test_an_address_holds_the_whole_question(question: Question) -> None:
    assert read_question(parse_qsl(question.query, keep_blank_values=True), FIELDS) == question


# (options, the same on the command line)
COMMANDS = [
    ((), "advise --model llama-3.1-8b --gpu t4"),
    ((("rank", "8"), ("padding", "yes")), "advise --model llama-3.1-8b --gpu t4 --rank 8 --padding"),
    ((("checkpointing", "no"),), "advise --model llama-3.1-8b --gpu t4 --no-checkpointing"),
]


@pytest.mark.parametrize(("options", "command"), COMMANDS)
def test_the_command_asks_the_same(options: tuple[tuple[str, str], ...], command: str, capsys: pytest.CaptureFixture[str]) -> None:
    question = Question(model="llama-3.1-8b", gpu="t4", options=options)
    assert question.command == command
    run([*shlex.split(command)[1:], "--quiet"])
    assert capsys.readouterr().out.strip() in Checked(reply(question).said).text


# ------------------------------------------------------------------------------------------------------ the processes behind it


def test_an_answer_is_kept_but_for_cards_of_this_machine() -> None:
    import asyncio

    calls: list[Question] = []
    pool = Pool(lambda: ThreadPoolExecutor(1))
    for question in (Question(), Question(), Question(gpu="local"), Question(gpu=" Local")):
        asyncio.run(pool.ask(calls.append, question))
    assert calls == [Question(), Question(gpu="local"), Question(gpu=" Local")]


def test_who_waits_behind_too_many_is_told_so() -> None:
    import asyncio

    gate = threading.Event()
    pool = Pool(lambda: ThreadPoolExecutor(1))

    async def crowd() -> list[Any]:
        asked = [asyncio.create_task(pool.ask(_wait, Question(model=str(number)), gate)) for number in range(MOST_WAITING + 3)]
        await asyncio.sleep(0.05)
        gate.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    told = asyncio.run(crowd())
    assert [type(one) for one in told].count(BusyError) == 3
    assert told.count(True) == MOST_WAITING


def _wait(_: Question, gate: threading.Event) -> bool:
    return gate.wait(10)


def test_a_process_that_dies_is_replaced() -> None:
    import asyncio
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    started: list[Executor] = []

    def start() -> Executor:
        started.append(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        return started[-1]

    pool = Pool(start)
    with pytest.raises(BrokenProcessPool):
        asyncio.run(pool.ask(_die, Question()))
    assert asyncio.run(pool.ask(str, Question())) == str(Question())
    assert len(started) == 2
    pool.close()


def _die(_: Question) -> None:
    os._exit(1)


def test_a_fault_of_ours_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Question) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr("advisor.page.app.reply", fail)
    answer = TestClient(door(), base_url=HOME, cookies={door().cookie: TOKEN}, raise_server_exceptions=False).get("/answer", params=EXAMPLE)
    assert (answer.status_code, answer.text.partition(",")[0]) == (500, "error: this is a bug of finetune-advisor")
    assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


# ------------------------------------------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as it is run, and the address that it prints."""
    command = [sys.executable, "-m", "advisor", "ui", "--no-browser", "--model", "llama-3.2-1b", "--gpu", "t4", "--rank", "8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_the_command_serves_this_machine_alone_until_it_is_interrupted(served: tuple[subprocess.Popen[str], str]) -> None:
    process, address = served
    found = re.fullmatch(r"(http://127\.0\.0\.1:(\d+)/)\?token=([\w-]{43})&(.*)", address)
    assert found
    asked = dict(parse_qsl(found[4]))
    assert (asked["model"], asked["gpu"], asked["rank"]) == ("llama-3.2-1b", "t4", "8")
    with urlopen(Request(f"{found[1]}?{found[4]}", headers={"Cookie": f"advise-{found[2]}={found[3]}"}), timeout=60) as page:
        assert advisor.advise("llama-3.2-1b", "t4", rank=8).verdict.sentence.split(":")[0] in page.read().decode()
    assert process.stdout is not None
    assert process.stdout.readline() == "The page is open to this machine alone; Ctrl-C ends it.\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


def test_it_listens_on_the_loopback_alone() -> None:
    from advisor.page.serve import listening

    with listening(0) as found:
        assert found.getsockname()[0] == "127.0.0.1"


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run(["ui", "--no-browser", "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"error: --port {port} cannot be used: Address already in use; leave it out for a free one\n"


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("advisor.page.serve.find_spec", lambda name: None)
    assert run(["ui", "--no-browser"]) == 2
    assert (
        capsys.readouterr().err == "error: the page needs starlette, uvicorn, jinja2 and vl-convert: pip install 'finetune-advisor[ui]'\n"
    )
