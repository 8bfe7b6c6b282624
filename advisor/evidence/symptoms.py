"""What is said to be wrong with a trained model where no score shows it, and the check that tells, by the public threads that found it."""

from __future__ import annotations

from advisor.evidence.failures import ADDED, Failure, cure_of, curves
from advisor.evidence.result import MEDIUM
from advisor.evidence.signatures import HOLDS_ADAPTER, MOVED, STEPS
from advisor.evidence.view import View
from advisor.values.evidence import Complaint

STOPS = (
    "that the labels of one batch hold the end token after the answer (where it is the pad token, too, it is masked with the padding), "
    f"that generation stops at that very token (eos_token_id), and that {ADDED}"
)
"""mlabonne/llm-course issue 33 and unslothai/unsloth issue 416 (pad is end), QwenLM/Qwen3 issue 1064 (untrained end token)."""
DECODES = (
    "that generation uses the chat template and the end token of training; then the evaluation loss along the run: where it turned before "
    "the end, fewer passes are the cure"
)
"""hiyouga/LlamaFactory issue 1450."""
BELONGS = f"that tokenizer, chat template and checkpoint belong together, and the type that generation runs in; then {STEPS}"
"""meta-pytorch/torchtune issue 1641, meta-llama/llama-cookbook issue 735."""
MERGED = (
    "that the adapter was merged into the very base that it was trained on (a 4-bit base dequantised, not the 16-bit weights in its "
    "place), that every module of it was merged (experts and modules_to_save, too) at alpha over the rank, and that tokenizer and chat "
    "template came along: lay the logits of one prompt beside those of the adapter"
)
"""huggingface/peft issues 1836 and 2368, NVIDIA-NeMo/Automodel issue 1226, unslothai/unsloth-zoo pull request 812 (experts dropped)."""
WORDS = {
    Complaint.NEVER_STOPS: ("its answers do not end: the end token was not learned, or generation does not stop at it", STOPS, ("E1",)),
    Complaint.REPEATS: ("it repeats itself, which the end token, the template or too many passes bring about", DECODES, ("E1", "E8")),
    Complaint.GARBAGE: (
        "what it writes is no language: other numbers than those that were trained, or steps that broke it",
        BELONGS,
        ("E6",),
    ),
    Complaint.LIKE_BASE: (
        "it answers as the untuned model does: it did not move, or was not there",
        f"{HOLDS_ADAPTER}; then {MOVED}",
        ("E3",),
    ),
    Complaint.MERGED_DIFFERS: (
        "merged it is another model than the adapter on its base: a fault of merging, not of training",
        MERGED,
        ("E2",),
    ),
}


def symptom(view: View) -> Failure | None:
    """The complaint as a failure to be cured, or what the curve shows, which says more; None where the complaint is none of these."""
    complaint = view.facts.complaint
    if complaint not in WORDS:
        return None
    what, check, evidence = WORDS[complaint]
    cure = cure_of(view, view.run, "lower") if complaint is Complaint.GARBAGE else "evaluation"
    return curves(view, view.run) or Failure(f"run {view.run.label}: {what}", check, cure, MEDIUM, evidence)
