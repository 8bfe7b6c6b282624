"""Write examples/ten_minutes.ipynb: run the cells below in order and keep what each shows, as Jupyter would. Needs the package alone.

python benchmarks/make_notebook.py
"""

from __future__ import annotations

import ast
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent.parent / "examples" / "ten_minutes.ipynb"

# Text and code in turn.
STORY = (
    """# Which fine-tuning method fits, before the GPU is rented

Ten minutes with `advisor`: one question, what the answer is made of, the question asked backwards, and what to do after the first runs.
Nothing here needs a GPU, weights or a network. Install it with `pip install finetune-advisor`.""",
    "from advisor import advise, estimate, fit, gpus, models, next_step",
    """## The question

A model, a card. The verdict comes first, and with it the command that prices exactly its plan; below it every method (a *rung*), what
was guessed because you did not say it, and what would change the answer.""",
    """answer = advise("llama-3.1-8b", "t4")
answer""",
    """## The answer is a value

Everything on the screen is a field: frozen, typed, bytes as whole numbers. `answer.model_dump_json()` has all of it, and `print(answer)`
is the screen of the command line. An interval stands beside each estimate: "fits" means that all of it lies below the card.""",
    """for rung in answer.rungs:
    memory = rung.memory
    print(f"{rung.plan.method.label:6} {rung.fit.value:13} {memory.low_bytes / 2**30:5.1f} to {memory.high_bytes / 2**30:5.1f} GiB")""",
    """## One plan, term by term

The peak is the highest phase, never a sum of phases. Here it is that of QLoRA at four times the length.""",
    """estimate("llama-3.1-8b", gpu="l4", method="qlora", seq_len="8k")""",
    """## The question asked backwards

How long may a sequence be? The unknown takes the place of its value; `batch_size="max"`, `gpus="min"`, `gpu="cheapest"` and
`model="largest"` are asked alike.""",
    """fit("llama-3.1-8b", "l4", method="qlora", seq_len="max")""",
    """## What is known

Models and cards by name; any other model by its Hub id or its `config.json`, any other card by its size: "24GB", "79.2GiB".""",
    """print([row.id for row in models("qwen3 4b")])
print([card.name for card in gpus("rtx 40")])""",
    """## After the first runs

Tell what was run and how it scored: the next step says what binds, and the one experiment that decides it.""",
    """next_step(
    {
        "model": "llama-3.1-8b",
        "gpu": "l4",
        "task": "math",
        "dataset_tokens": "2M",
        "evaluation": {"metric": "exact_match", "n": 1319, "target": 0.60, "base": 0.21},
        "runs": [
            {"method": "qlora", "rank": 16, "learning_rate": 1e-4, "score": 0.412},
            {"method": "qlora", "rank": 16, "learning_rate": 2e-4, "score": 0.447},
            {"method": "qlora", "rank": 16, "learning_rate": 4e-4, "score": 0.439},
        ],
    }
)""",
    """## And from here

- `advise llama-3.1-8b t4 --html report.html` writes the whole answer as one page, with figures: `pip install 'finetune-advisor[report]'`.
- `advise check qlora.yml --gpu t4` reads a trainer's own configuration.
- `advise explain C4` says what any code or word on a screen means, and where it stands.""",
)


def notebook() -> dict[str, Any]:
    """Return the notebook, executed, in Jupyter's format 4.5 (nbformat.v4)."""
    names: dict[str, Any] = {}
    cells = [_text(source, number) if number % 2 == 0 else _code(source, number, names) for number, source in enumerate(STORY)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}


def _text(source: str, number: int) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": f"cell-{number}", "metadata": {}, "source": source.splitlines(keepends=True)}


def _code(source: str, number: int, names: dict[str, Any]) -> dict[str, Any]:
    count = (number + 1) // 2
    outputs = [*_run(source, count, names)]
    code = {"cell_type": "code", "execution_count": count, "id": f"cell-{number}", "metadata": {}}
    return {**code, "outputs": outputs, "source": source.splitlines(keepends=True)}


def _run(source: str, count: int, names: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run a cell; yield what it prints, and the value of its last line where that is an expression."""
    parts = ast.parse(source)
    last = parts.body.pop() if isinstance(parts.body[-1], ast.Expr) else None
    printed, value = StringIO(), None
    with redirect_stdout(printed):
        exec(compile(parts, "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    if printed.getvalue():
        yield {"name": "stdout", "output_type": "stream", "text": printed.getvalue().splitlines(keepends=True)}
    if value is not None:
        data = {"text/html": value._repr_html_().splitlines(keepends=True), "text/plain": [repr(value)]}
        yield {"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"}


def main() -> None:
    """Write the notebook, without what this machine has calibrated and recorded."""
    with tempfile.TemporaryDirectory() as empty:
        os.environ["FINETUNE_ADVISOR_CACHE"] = os.environ["FINETUNE_ADVISOR_DATA"] = empty
        NOTEBOOK.write_text(json.dumps(notebook(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
