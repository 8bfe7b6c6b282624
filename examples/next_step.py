"""From what was run to the next experiment: a project that asks three times, each time with one more run."""

from __future__ import annotations

from typing import Any

from advisor import next_step

PROJECT: dict[str, Any] = {
    "model": "llama-2-7b",
    "gpu": "A100 80GB",
    "task": "math",
    "dataset_tokens": 30_000_000,
    "evaluation": {"metric": "gsm8k", "n": 1319, "target": 0.52, "base": 0.14},
}
COMMON: dict[str, Any] = {"method": "lora", "rank": 16, "alpha": 32, "targets": ["all-linear"], "batch": 16, "epochs": 2}
RUNS: list[dict[str, Any]] = [
    COMMON | {"id": "first", "learning_rate": 2e-5, "score": 0.31},
    COMMON | {"id": "second", "learning_rate": 2e-4, "score": 0.41, "lr_sweep": [[6.7e-5, 0.36], [2e-4, 0.41], [6e-4, 0.40]]},
    COMMON | {"id": "wide", "rank": 64, "alpha": 128, "learning_rate": 1e-4, "score": 0.415, "lr_sweep": [[5e-5, 0.40], [1e-4, 0.415]]},
]


def main() -> None:
    for count in range(1, len(RUNS) + 1):
        answer = next_step(PROJECT | {"runs": RUNS[:count]})
        traps = ", ".join(finding.id for finding in answer.findings)
        print(f"after {count} runs: {answer.binding.label} ({answer.confidence.value}), from run {answer.current}")
        print(f"  {answer.next_experiment}")
        print(f"  findings: {traps or 'none'}")


if __name__ == "__main__":
    main()
