"""Run a training step of every model of the profiles that has no tables: `python -m benchmarks.coverage_of_profiles [ID …]`.

On meta tensors, with a few layers of each kind, rank 8 and 64 tokens, by LoRA or the methods of `--methods`: what cannot be run is named
with the reason. What answers for such a model is a recording of this step, so that one that fails here is one that `advise` refuses by
its name.
"""

from __future__ import annotations

import argparse
import sys
import time

from advisor.architectures import SUPPORTED
from advisor.dryrun import dry_run, meta_model
from advisor.dryrun.isolation import libraries_untouched
from advisor.dryrun.tapes import quick
from advisor.errors import AdvisorError
from advisor.hub import load_model, search_models
from advisor.stacks import default_plan
from advisor.values import Method, ModelSpec, Request

TOKENS = 64
REQUEST = Request(rank=8, seq_len=TOKENS)


def problem(model: ModelSpec, method: Method = Method.LORA) -> str:
    """Why the step cannot be run; empty where it can."""
    try:
        plan = default_plan(method, model, None, REQUEST)
        settings = dry_run.Settings(lengths=(TOKENS,))
        with quick(), dry_run.library_errors(model), libraries_untouched(plan.quantization is not None):
            few = meta_model.few_layers(model, plan)
            dry_run.record_shape(model, plan, settings, few[1] if few is not None else meta_model.WHOLE)
    except AdvisorError as error:
        return str(error)
    return ""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("ids", nargs="*", help="models; all without tables where none is named")
    arguments.add_argument("--methods", nargs="+", choices=[method.value for method in Method], default=[Method.LORA.value])
    arguments.add_argument("--one-per-type", action="store_true", help="the first model of each type alone")
    given = arguments.parse_args()
    rows = [row for row in search_models() if row.model_type not in SUPPORTED]
    if given.one_per_type:
        rows = [*{row.model_type: row for row in reversed(rows)}.values()]
    cases = [(name, Method(method)) for name in given.ids or [row.id for row in rows] for method in given.methods]
    refused = 0
    for name, method in cases:
        started = time.process_time()
        why = problem(load_model(name), method)
        refused += bool(why)
        print(f"{name}, {method.label}: {why or 'runs'} ({time.process_time() - started:.1f} s)", flush=True)
    print(f"{len(cases) - refused} of {len(cases)} run")
    sys.exit(refused > 0)


if __name__ == "__main__":
    main()
