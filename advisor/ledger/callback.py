"""Records a run by itself: a callback for transformers' Trainer and everything built on it (TRL).

The run is stored when training begins, marked unfinished, and brought up to date when it logs; so that one that is killed, or dies of too
little memory, has still left what it did. Of several processes only the first writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advisor.errors import MissingExtraError


def record_callback(*, ledger: str | Path | None = None, **fields: Any) -> Any:
    """A `transformers.TrainerCallback`: `Trainer(..., callbacks=[record_callback(name="first", gpu="rtx 4090")])`.

    The fields are those of `advisor.record`; they are right where the trainer says otherwise. The callback's `run_id` is the run's number.
    """
    try:
        from advisor.ledger.trainer_callback import RecordingCallback
    except ImportError as error:
        raise MissingExtraError("recording a Trainer's run needs transformers: pip install 'finetune-advisor[torch]'") from error
    return RecordingCallback(ledger, fields)
