"""Make the pages that the code and its data are the source of: a hook of mkdocs, which `mkdocs build` runs.

Each page is a function that returns Markdown; nothing of it is written by hand twice. tests/test_docs.py reads the same functions.
"""

from __future__ import annotations

import ast
import html
import inspect
import json
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the code beside these pages, whatever is installed

import advisor
from advisor import accuracy as room
from advisor.accuracy import AccuracyReport
from advisor.accuracy.intervals import median
from advisor.accuracy.tiers import MeasuredPlan
from advisor.cli.app import SUBCOMMANDS, app
from advisor.cli.options import LOOP_PANEL, PANELS
from advisor.errors import UnsupportedError
from advisor.explain import Explanation, explain, listed
from advisor.ladder.knowledge import fact, sources
from advisor.render.accuracy import markdown
from advisor.render.blocks import Code, Entries, Heading, Paragraph
from advisor.units import format_difference, format_share
from advisor.values import MemoryBreakdown, Term
from advisor.values.memory import TermBytes
from advisor.values.vocabulary import SCHEMA_VERSION

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ANSWERS = (
    "Advice",
    "MemoryBreakdown",
    "CheckReport",
    "FitAnswer",
    "NextStep",
    "CalibrationRun",
    "RunRecord",
    "SweepReport",
    "AdapterReport",
)
"""What `--json` prints, as names of the package."""
MEMORY = ROOT / "advisor" / "memory"


def cell(text: str) -> str:
    """Text as it is, on one line of Markdown; what stands between backticks stays code."""
    pieces = html.escape(" ".join(text.split()), quote=False).split("`")
    if len(pieces) % 2 == 0:
        return _escaped("`".join(pieces))
    return "".join(f"<code>{_escaped(piece)}</code>" if number % 2 else _escaped(piece) for number, piece in enumerate(pieces))


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "|*_`[]" else letter for letter in text)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown; its cells are Markdown."""
    names = [*head]
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


# --- reference/commands.md


def commands_page() -> str:
    """Every command with its options, as its own help has them; the options of a plan once."""
    group, context = _group()
    plan = [*PANELS, LOOP_PANEL]
    text = "# Commands\n\nWhat `advise COMMAND --help` says, all of it.\n\n## advise\n\n"
    text += _help(group, context, leave_out=plan)
    text += "\n## Options of a plan {#plan}\n\nTaken by every command that prices a plan. Beside each stands what it is when left out.\n\n"
    text += _help(group, context, only=plan)
    for name in SUBCOMMANDS:
        text += f"\n## advise {name}\n\n" + _help(group.commands[name], context, leave_out=plan)
    return text


def _group() -> tuple[Any, Any]:
    import typer
    from typer.main import get_command

    group = get_command(app)
    return group, typer.Context(group, info_name="advise", resilient_parsing=True)


def _help(command: Any, parent: Any, *, only: Iterable[str] = (), leave_out: Iterable[str] = ()) -> str:
    """The blocks of a command's help as Markdown: with its usage, or the panels `only`."""
    import typer

    from advisor.cli.help import help_of

    context = parent if command is parent.command else typer.Context(command, info_name=command.name, parent=parent)
    text, title, skipped = "", "", False
    for block in help_of(command, context):
        if isinstance(block, Heading):
            title = block.text
            skipped |= title in leave_out
        shown = title in only if only else title not in leave_out
        text += _markdown(block) if shown else ""
    return text + ("\nAnd the [options of a plan](#plan).\n" if skipped and not only and command is not parent.command else "")


def _markdown(block: object) -> str:
    """A block of a screen as Markdown."""
    if isinstance(block, Heading):
        return f"\n**{block.text}**\n\n"
    if isinstance(block, Code):
        return f"```sh\n{block.text.strip()}\n```\n\n"
    if isinstance(block, Paragraph):
        usage = block.text.text.startswith("Usage: ")
        return f"`{block.text.text.removeprefix('Usage: ')}`\n\n" if usage else f"{cell(block.text.text)}\n\n"
    if isinstance(block, Entries):
        return table(("", ""), ((f"`{label}`".replace("|", "\\|"), cell(text.text)) for label, text in block.rows))
    return ""


# --- reference/words.md, facts.md, exit-codes.md

_KINDS = {"finding": "Findings", "gate": "Gates of `advise next`", "term": "Memory terms", "phase": "Phases of a step", "word": "Words"}


def words_page() -> str:
    """Everything that `advise explain` explains but facts and exit codes."""
    text = "# Findings and words\n\nEvery id and word that a screen shows; `advise explain NAME` says the same.\n\n"
    return text + "".join(f"## {title}\n\n{_explained(kind)}" for kind, title in _KINDS.items())


def exit_codes_page() -> str:
    """What the numbers mean that a command ends with."""
    return f"# Exit codes\n\n{_explained('exit code')}"


def facts_page() -> str:
    """Published results that findings and gates stand on."""
    text = "What a screen says about quality stands on a published result; its code is in brackets there."
    return f"# Facts and their sources\n\n{text}\n\n" + "".join(_fact(name) for name in sources())


def _fact(name: str) -> str:
    known = fact(name)
    source = f"[{cell(known.source)}]({known.url})" if known.url.startswith("https://") else cell(known.source)
    parts = [cell(known.statement), f"Source: {source}."]
    parts += [f"{label}: {cell(said)}." for label, said in (("Conditions", known.conditions), ("Caveat", known.caveat)) if said]
    return f"### {name}\n\n{' '.join(parts)} Confidence: {cell(known.confidence)}.\n\n"


def _explained(kind: str) -> str:
    names = dict(listed())[kind]
    return "".join(f"### {name}\n\n{_meaning(_of_kind(name, kind))}" for name in names)


def _of_kind(name: str, kind: str) -> Explanation:
    return next(found for found in explain(name) if found.kind == kind)


def _meaning(found: Explanation, facts_page: str = "facts.md") -> str:
    facts = ", ".join(f"[{one.id}]({facts_page}#{one.id.lower()})" for one in found.facts)
    text = f"{cell(found.meaning)}\n\n"
    text += f"**What to do:** {cell(found.do)}\n\n" if found.do else ""
    text += f"**Source:** {cell(found.source)}\n\n" if found.source else ""
    return text + (f"**Stands on:** {facts}\n\n" if facts else "")


# --- reference/python.md, formulas.md, json.md


def python_page() -> str:
    """The public names, from their docstrings."""
    names = [name for name in advisor.__all__ if name != "__version__"]
    functions = [name for name in names if name[0].islower()]
    errors = [name for name in names if name.endswith("Error")]
    others = [name for name in names if name not in (*functions, *errors)]
    text = "# Python\n\nEverything that `import advisor` gives. Results are frozen; bytes are `int`.\n\n"
    for title, members in (("Functions", functions), ("Errors", errors), ("Values", others)):
        text += f"## {title}\n\n" + "".join(f"::: {_home(name)}\n\n" for name in members)
    return text


def _home(name: str) -> str:
    """Where a name is defined, which is where its docstring is read."""
    found = getattr(advisor, name)
    return f"{found.__module__}.{found.__qualname__}"


def formulas_page() -> str:
    """The closed form's own docstrings, file by file."""
    text = "# The formulas\n\nThe closed form, file by file: what is counted, per what, and where that was read.\n\n"
    return text + "".join(_formulas(path) for path in sorted(MEMORY.glob("*.py")) if path.stem != "__init__")


def _formulas(path: Path) -> str:
    options = "    options:\n      heading_level: 2\n      show_signature_annotations: false\n      show_root_full_path: true\n"
    return f"::: advisor.memory.{path.stem}\n{options}\n"


def json_page() -> str:
    """The fields of what `--json` prints; the whole schemas lie beside the page."""
    text = f"# JSON\n\n`--json` prints the value itself, under schema version {SCHEMA_VERSION}: "
    text += "it rises when a field is renamed, removed or changes its meaning.\n\n"
    for name in ANSWERS:
        schema = schema_of(name)
        text += (
            f"## {name}\n\n{cell(schema.get('description', ''))}\n\nThe whole schema: [{name}.schema.json](schemas/{name}.schema.json).\n\n"
        )
        said = described(getattr(advisor, name))
        rows = (
            (f"`{field}`", cell(_type(about)), cell(about.get("description") or said.get(field, "")))
            for field, about in schema["properties"].items()
        )
        text += table(("field", "type", ""), rows)
    return text


@cache
def schema_of(name: str) -> dict[str, Any]:
    """The JSON schema of an answer as it is printed."""
    return dict(getattr(advisor, name).model_json_schema(mode="serialization"))


def described(kind: type) -> dict[str, str]:
    """The text under each field of a class and of its bases: the field's docstring, which Python itself throws away."""
    found: dict[str, str] = {}
    for base in reversed([base for base in kind.__mro__ if base.__module__.startswith("advisor.")]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
                found[field.target.id] = inspect.cleandoc(str(ast.literal_eval(after.value)))
    return found


def _type(about: dict[str, Any]) -> str:
    if "$ref" in about:
        return str(about["$ref"].rpartition("/")[2])
    if "anyOf" in about:
        return " or ".join(_type(one) for one in about["anyOf"])
    items = f" of {_type(about['items'])}" if isinstance(about.get("items"), dict) and about["items"] else ""
    return f"{about.get('type', 'any')}{items}"


# --- terms.md, accuracy.md


class Difference(NamedTuple):
    """The closed form less the dry run of one measured run, in one term, as a share of all that is allocated or reserved."""

    share: float
    run: str


@cache
def held_to_account() -> tuple[tuple[AccuracyReport, ...], dict[str, list[Difference]]]:
    """Both tiers beside the measured runs, and the closed form beside the dry run of the same runs, term by term."""
    ran: dict[tuple[str, int], MeasuredPlan] = {}
    recorded = room.recorded_in()

    def closed_form(run: MeasuredPlan) -> MemoryBreakdown:
        ran[run.row.id, run.plan.seq_len_tokens] = run
        return room.closed_form(run)

    dry_run = partial(room.recorded_dry_run, recorded)
    reports = (room.accuracy(closed_form, room.CLOSED_FORM), room.accuracy(dry_run, room.DRY_RUN))
    found: dict[str, list[Difference]] = defaultdict(list)
    for key in sorted(ran.keys() & recorded.keys()):
        try:
            both = room.closed_form(ran[key]), dry_run(ran[key])
        except UnsupportedError:
            continue
        for term, share in _differences(*both):
            found[term].append(Difference(share, ran[key].row.id))
    return reports, dict(found)


def _differences(closed: MemoryBreakdown, dry: MemoryBreakdown) -> Iterator[tuple[str, float]]:
    """At the closed form's highest phase; the allocator's slack at each one's own."""
    phase = next(phase for phase in dry.phases if phase.phase is closed.peak_phase)
    here, there = _bytes(closed.terms), _bytes(phase.terms)
    for term in here.keys() | there.keys():
        yield term.value.replace("_", " "), (here.get(term, 0) - there.get(term, 0)) / phase.allocated_bytes
    yield "allocator slack", (closed.reserved_slack_bytes - dry.reserved_slack_bytes) / dry.peak_reserved_bytes


def _bytes(terms: Iterable[TermBytes]) -> dict[Term, int]:
    return {term.term: term.bytes for term in terms}


def terms_part() -> str:
    """Every memory term: what it is, where its formula was read, and how far the closed form is from the dry run in it."""
    _, found = held_to_account()
    rows = ((f"[{name}](#{name.replace(' ', '-').lower()})", *_spread(found.get(name, []))) for name in dict(listed())["term"])
    text = table(("term", "runs", "median", "nine in ten within", "lowest", "highest"), rows)
    return text + "".join(f"## {name}\n\n{_meaning(_of_kind(name, 'term'), 'reference/facts.md')}" for name in dict(listed())["term"])


def _spread(found: list[Difference]) -> tuple[str, ...]:
    if not found:
        return ("—",) * 5
    shares, sizes = [one.share for one in found], sorted(abs(one.share) for one in found)
    nine_in_ten = sizes[-(-9 * len(sizes) // 10) - 1]
    within = (format_share(size, 2) for size in (median(sizes), nine_in_ten))
    return (str(len(found)), *within, *(format_difference(share, 2) for share in (min(shares), max(shares))))


def accuracy_part() -> str:
    """Both tiers beside every measured run, and where these runs were published."""
    reports, _ = held_to_account()
    counts = Counter(run.source for run in room.measurements())
    text = f"{markdown(reports)}\n\n## Where the runs come from\n\n"
    return text + table(("runs", "source"), ((str(count), cell(source)) for source, count in sorted(counts.items())))


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/python.md": python_page,
    "reference/words.md": words_page,
    "reference/facts.md": facts_page,
    "reference/exit-codes.md": exit_codes_page,
    "reference/json.md": json_page,
    "formulas.md": formulas_page,
}
"""Pages that are made whole."""
PARTS: dict[str, Callable[[], str]] = {"terms.md": terms_part, "accuracy.md": accuracy_part}
"""What stands in a written page in place of MADE_HERE."""
MADE_HERE = "<!-- made here -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the made pages and the schemas to those of the folder (mkdocs calls this)."""
    from mkdocs.structure.files import File

    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    for name in ANSWERS:
        text = json.dumps(schema_of(name), indent=1, ensure_ascii=False)
        files.append(File.generated(config, f"reference/schemas/{name}.schema.json", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the made part into a written page (mkdocs calls this)."""
    part = PARTS.get(page.file.src_uri)
    return markdown if part is None else markdown.replace(MADE_HERE, part())
