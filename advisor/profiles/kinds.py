"""Which row model the rows of a file are held against."""

from __future__ import annotations

from typing import Any

KINDS = (
    "communicators",
    "explanations",
    "gpus",
    "instances",
    "measurements/residuals",
    "methods/curves",
    "methods/facts",
    "methods/gates",
    "methods/moves",
    "methods/speed",
    "methods/texts",
    "methods/thresholds",
    "model_types",
    "models",
    "not_covered/gpus",
    "not_covered/models",
    "rates/cards",
    "rates/kernels",
    "rates/left_out",
    "rates/links",
    "rates/spread",
    "runtime",
    "stacks/deepspeed",
    "stacks/engines",
    "stacks/jobs",
    "stacks/keys",
    "stacks/liger",
    "stacks/versions",
    "times",
)
"""Folders and single files of `profiles/`, each with one row model. Measured runs have theirs in `advisor.accuracy.rows`."""


def row_type(kind: str) -> Any:
    """The row model of a kind. Each is imported when it is asked for: to make one takes a millisecond."""
    room, _, file = kind.partition("/")
    if room == "methods":
        from advisor.profiles import methods

        return {
            "curves": methods.Curve,
            "facts": methods.Fact,
            "gates": methods.Threshold,
            "moves": methods.Move,
            "speed": methods.Speed,
            "texts": methods.Sentence,
            "thresholds": methods.Threshold,
        }[file]
    if room == "stacks":
        from advisor.profiles import stacks

        return {
            "deepspeed": stacks.DeepSpeedFile,
            "engines": stacks.EngineDefault,
            "liger": stacks.LigerTypes,
            "jobs": stacks.JobRow,
            "keys": stacks.KeysOrBuilders,
            "versions": stacks.ReleaseRow,
        }[file]
    if room in ("rates", "times"):
        from advisor.profiles import rates

        return {
            "": rates.TimedRuns,
            "cards": rates.CardRates,
            "kernels": rates.KernelRates,
            "left_out": rates.LeftOut,
            "links": rates.LinkRates,
            "spread": rates.TimeSpread,
        }[file]
    if room in ("runtime", "measurements", "communicators"):
        from advisor.profiles import runtime

        if room == "communicators":
            return runtime.CommunicatorRow
        return runtime.Residuals if file else runtime.ContextRow
    from advisor.profiles import explanations, gpus, model_types, models

    return {
        "explanations": explanations.ExplanationRow,
        "gpus": gpus.GpuProfile,
        "instances": gpus.InstanceProfile,
        "model_types": model_types.ModelTypeRow,
        "models": models.ModelProfile,
        "not_covered/gpus": gpus.UncoveredGpu,
        "not_covered/models": models.UncoveredModel,
    }[kind]
