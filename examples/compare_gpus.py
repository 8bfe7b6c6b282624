"""The cheapest card on which a method fits: the same question asked of several cards."""

from __future__ import annotations

from advisor import Fit, advise

MODEL = "qwen2.5-7b"
GPUS = ("rtx 4090", "l40s", "a100-80gb")


def main() -> None:
    for gpu in GPUS:
        answer = advise(MODEL, gpu, seq_len=4096)
        fitting = [rung.plan.method.label for rung in answer.rungs if rung.fit is Fit.FITS]
        print(f"{answer.gpu.name}: {answer.verdict.sentence} Fits: {', '.join(fitting) or 'nothing'}.")


if __name__ == "__main__":
    main()
