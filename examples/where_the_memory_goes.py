"""What one plan holds at its peak, term by term, and what checkpointing changes."""

from __future__ import annotations

from advisor import estimate
from advisor.units import format_size


def main() -> None:
    for checkpointing in (False, True):
        memory = estimate("llama-3.1-8b", gpu="rtx 4090", method="lora", batch_size=4, checkpointing=checkpointing)
        print(f"checkpointing {checkpointing}: {format_size(memory.expected_bytes)}, peak in {memory.peak_phase.value}")
        for term in sorted(memory.terms, key=lambda term: -term.bytes):
            print(f"  {term.term.value:16} {format_size(term.bytes):>10}")


if __name__ == "__main__":
    main()
