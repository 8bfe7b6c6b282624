"""One 24 GB card: what was changed to make each method fit, and how long a sequence may be."""

from __future__ import annotations

from advisor import advise, fit


def main() -> None:
    answer = advise("llama-3.1-8b", "rtx 4090")
    for rung in answer.rungs:
        changes = "; ".join(change.what for change in rung.changes) or "as it is"
        print(f"{rung.plan.method.label}: {rung.fit.value} ({changes}), up to {rung.max_seq_len_tokens or 0:,} tokens")
    for method in ("lora", "qlora"):
        print(fit("llama-3.1-8b", "rtx 4090", method=method, checkpointing=True, seq_len="max"))


if __name__ == "__main__":
    main()
