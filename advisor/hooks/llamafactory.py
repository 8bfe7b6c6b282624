"""LLaMA-Factory has no hook before it loads: this runs the check on its configuration, then its training with the callback.

from advisor.hooks.llamafactory import run_exp
run_exp("qlora.yaml", gpu="24GB", on_misfit="raise")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advisor.configs import check
from advisor.guard import guarded
from advisor.hooks.flight import PreflightOptions, act
from advisor.ladder.request import options_as
from advisor.stacks.files import read_settings
from advisor.values import Stack


def run_exp(config: str | Path, callbacks: Sequence[Any] = (), *, ledger: bool | str | Path = False, **options: Any) -> None:
    """`llamafactory.train.tuner.run_exp` on a configuration file, after the check of the file and with the check of the live model."""
    from llamafactory.train.tuner import run_exp as train

    from advisor.hooks.callback import AdvisorCallback

    chosen = options_as(PreflightOptions, options, flags=False)
    _look(config, chosen)
    live = AdvisorCallback(ledger=ledger, **{**chosen.model_dump(exclude_none=True), "on_misfit": "ignore"})
    train(read_settings(Path(config)).values, [*callbacks, live])


@guarded("pre-flight")
def _look(config: str | Path, chosen: PreflightOptions) -> None:
    """Check the file, and warn or raise as told."""
    length = {"seq_len": chosen.seq_len} if chosen.seq_len else {}
    act(check(config, chosen.gpu, stack=Stack.LLAMAFACTORY, **length), chosen.on_misfit, stacklevel=5)
