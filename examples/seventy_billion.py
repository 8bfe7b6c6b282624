"""Seventy billion parameters on one 80 GB card: which method, does it fit, and what to run first."""

from __future__ import annotations

from advisor import advise
from advisor.units import format_size


def main() -> None:
    answer = advise("llama-70b", "80GB")
    for rung in answer.rungs:
        memory = rung.memory
        print(f"{rung.plan.method.label:6} {rung.fit.value:12} {format_size(memory.low_bytes)} to {format_size(memory.high_bytes)}")
    print(answer.verdict.sentence)
    print(answer.next_experiment)
    print(answer.command)


if __name__ == "__main__":
    main()
