"""A calibration as rows that can be contributed to `profiles/measurements/`: one for each shape that was run."""

from __future__ import annotations

import json
from typing import Any

from advisor.values import Plan
from advisor.values.calibration import Calibration, Point

_NOT_SETTINGS = frozenset({"n_gpus"})


def as_text(calibration: Calibration) -> str:
    """JSON, as a file of `profiles/measurements/` holds it. `source` is left for the contributor to fill in."""
    return json.dumps([row(calibration, point) for point in calibration.points], indent=2) + "\n"


def row(calibration: Calibration, point: Point) -> dict[str, Any]:
    """One shape. Live storages are no reading of a card, and are not scored."""
    hardware = calibration.hardware
    reason = "live storages were counted, not a card's memory" if hardware.counts_live_storages else ""
    readings = [{"metric": "allocated", "bytes": point.peak_bytes, "what": "peak"}]
    if point.reserved_bytes is not None:
        readings.append({"metric": "reserved", "bytes": point.reserved_bytes, "what": "peak"})
    return {
        "id": f"calibration-{calibration.id}-{point.layers}l-{point.plan.micro_batch_size}x{point.plan.seq_len_tokens}",
        "kind": "run",
        "source": "a contributor's own calibration",
        "place": f"advise calibrate --export {calibration.id}",
        "grade": "A",
        "model": calibration.model,
        "layers": point.layers if point.layers < calibration.model_layers else None,
        "gpu": hardware.card,
        "card": hardware.profile if hardware.backend != "cpu" else None,
        "n_gpus": point.plan.n_gpus,
        "versions": calibration.versions,
        "scored": not reason,
        "reason": reason,
        "settings": settings_of(point.plan),
        "readings": readings,
        "stages": [{"name": entry.phase.value, "max_allocated_bytes": entry.measured_bytes} for entry in point.phases],
        "context_bytes": calibration.context_bytes,
        "stated": {
            "backend": hardware.backend,
            "driver": hardware.driver,
            "created_at": calibration.created_at,
            **({} if point.timing is None else point.timing.model_dump(mode="json")),
        },
    }


def settings_of(plan: Plan) -> dict[str, Any]:
    """The plan in the words of a measured row."""
    return {name: value for name, value in plan.model_dump(mode="json").items() if name not in _NOT_SETTINGS}
