"""Seventy billion parameters on four cards: what each card holds when they share the model, and how few would do."""

from __future__ import annotations

from advisor import estimate, fit
from advisor.units import format_size

MODEL, GPU, CARDS = "llama-70b", "h200", 4


def main() -> None:
    for shard in ("fsdp2", "zero3"):
        memory = estimate(MODEL, gpu=GPU, gpus=CARDS, method="lora", shard=shard, checkpointing=True)
        print(f"{shard} on {CARDS} x {GPU}: {format_size(memory.expected_bytes)} a card, at most {format_size(memory.high_bytes)}")
        for term in sorted(memory.terms, key=lambda term: -term.bytes)[:3]:
            print(f"  {term.term.value:16} {format_size(term.bytes):>10}")
    print(fit(MODEL, GPU, gpus="min", method="lora", shard="fsdp2", checkpointing=True))


if __name__ == "__main__":
    main()
