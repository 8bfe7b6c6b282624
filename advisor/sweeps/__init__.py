"""Sweeps: a grid of models, cards and plans priced as arrays, kind by kind, into one table. Needs the extra `sweep`."""

from advisor.errors import MissingExtraError


def need() -> None:
    """Raises MissingExtraError, the line to install, where numpy or pyarrow is missing."""
    try:
        import numpy
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("a sweep needs numpy and pyarrow: pip install 'finetune-advisor[sweep]'") from error
    del numpy, pyarrow
