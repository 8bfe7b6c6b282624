"""Four cards for one model: which method fits on each, what it would cost, and which is the cheapest that does."""

from __future__ import annotations

from advisor import Fit, advise

MODEL = "qwen2.5-7b"
GPUS = ("l4", "rtx 4090", "l40s", "a100-80gb")


def main() -> None:
    for gpu in GPUS:
        answer = advise(MODEL, gpu, seq_len=4096)
        fitting = [rung.plan.method.label for rung in answer.rungs if rung.fit is Fit.FITS]
        print(f"{answer.gpu.name}: {answer.verdict.sentence} Fits: {', '.join(fitting) or 'nothing'}.")


if __name__ == "__main__":
    main()
