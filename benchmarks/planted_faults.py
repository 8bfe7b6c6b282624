"""Plausible wrong changes, each of which the tests of its own room must notice: those that once went unnoticed, and others of their kind.

    python -m benchmarks.planted_faults              all of them: one process each, minutes on one core
    python -m benchmarks.planted_faults allocator    those of files whose path holds the word

Nothing is written into the sources (benchmarks/mutants.py). A text that is no longer in its file is an error: mend the row. Tests are named
without `test_` and ending. None of these compares a kept screen, which an update would bless.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from benchmarks.mutants import ROOT, Stage, child, load_libraries

MOST_CPU_S = 150.0
"""Judgement: several times what the slowest file of tests takes."""


class Planted(NamedTuple):
    """A wrong change."""

    file: str
    """Below advisor/."""
    right: str
    wrong: str
    tests: str
    """Files of tests that own what is changed."""


FAULTS = (
    # weights at rest and while they are loaded
    Planted("memory/weights.py", "FOUR_BIT_BLOCK = 64", "FOUR_BIT_BLOCK = 128", "memory_goldens"),
    Planted("memory/weights.py", "NESTED_BLOCK = 256", "NESTED_BLOCK = 64", "memory_goldens"),
    Planted("memory/weights.py", "params + rows * FP32_BYTES", "params + FP32_BYTES", "memory_goldens"),
    Planted("memory/weights.py", "max(model.shape.embedding_params, model.shape.head_params)", "model.shape.head_params", "other_sources"),
    Planted(
        "memory/weights.py", "FP32_BYTES if plan.kbit_prepare and plan.quantization", "FP32_BYTES if plan.quantization", "other_sources"
    ),
    Planted("memory/loading.py", "BROADCAST_BUCKET_BYTES = 250 * MIB", "BROADCAST_BUCKET_BYTES = 25 * MIB", "other_sources"),
    # the optimizer
    Planted("memory/optimizer.py", "    Optimizer.ADAMW: 2,", "    Optimizer.ADAMW: 1,", "memory_goldens"),
    Planted("memory/optimizer.py", "EIGHT_BIT_MIN_NUMEL = 4096", "EIGHT_BIT_MIN_NUMEL = 0", "other_sources"),
    Planted("memory/optimizer.py", "EIGHT_BIT_BLOCK = 256", "EIGHT_BIT_BLOCK = 2048", "memory_goldens"),
    Planted("memory/optimizer.py", "PAGED_MIN_NUMEL = 100_000", "PAGED_MIN_NUMEL = 0", "other_sources"),
    Planted("memory/optimizer.py", "ADAFACTOR_TEMPORARIES = 2", "ADAFACTOR_TEMPORARIES = 1", "other_sources"),
    Planted("memory/optimizer.py", "ADAFACTOR_COPIES = 2", "ADAFACTOR_COPIES = 1", "other_sources"),
    # head, loss and evaluation
    Planted("memory/head.py", "TILE_TOKENS = 4096", "TILE_TOKENS = 2048", "other_sources"),
    Planted("memory/head.py", "TILE_VOCABULARY = 32768", "TILE_VOCABULARY = 16384", "other_sources"),
    Planted(
        "memory/head.py", "wide = cast(tape, logits, vocab, logits_bytes, FP32_BYTES)", "wide = logits", "other_sources memory_goldens"
    ),
    Planted(
        "memory/head.py",
        "linear(tape, normed, head, setting, setting.stream_bytes)",
        "linear(tape, normed, head, setting, 1)",
        "other_sources",
    ),
    Planted("memory/evaluation.py", "return params * plan.autocast_dtype.size_bytes", "return 0", "other_sources"),
    # norms, slack, what the process holds
    Planted(
        "memory/norms.py",
        "wide = Size(features * FP32_BYTES)\n    narrow",
        "wide = Size(features * x_bytes)\n    narrow",
        "other_sources",
    ),
    Planted("memory/runtime.py", "HANDLES = 2", "HANDLES = 1", "other_sources"),
    Planted("memory/slack.py", "max(min(head, block)", "max(max(head, block)", "slack"),
    Planted("memory/slack.py", "return 2 * _half_logits_bytes", "return _half_logits_bytes", "slack"),
    # several cards
    Planted("memory/sharding.py", "buckets = gradients if plan.sharding is Sharding.DDP else 0", "buckets = 0", "sharding"),
    Planted("memory/fsdp.py", "tail.gathered_bytes + ahead, done", "tail.gathered_bytes, done", "sharding sharded_grid"),
    Planted("memory/fsdp.py", "root + copied + units.prefetched_copies * size, carried)\n", "root, carried)\n", "sharding sharded_grid"),
    Planted("memory/peak.py", "Phase.FORWARD, program.forward", "Phase.FORWARD, program.backward", "memory_goldens memory_laws"),
    Planted("memory/peak.py", "min(plan.grad_accum_steps, 3)", "1", "other_sources"),
    # how sure
    Planted("memory/chance.py", "held * found.effective / (found.effective + 1)", "held", "chance"),
    Planted("memory/chance.py", "error if above else -error", "error", "chance"),
    Planted("ladder/fit.py", "memory.high_bytes <= usable_bytes", "memory.expected_bytes <= usable_bytes", "verdict ladder"),
    Planted("ladder/fit.py", "memory.low_bytes > usable_bytes else", "memory.expected_bytes > usable_bytes else", "verdict ladder"),
    Planted("statistics.py", "(share * n + 0.5) / (n + 1)", "share", "evidence_statistics"),
    # the allocator
    Planted("allocator/blocks.py", "MIN_BLOCK_BYTES = 512", "MIN_BLOCK_BYTES = 256", "allocator"),
    Planted("allocator/blocks.py", "LARGE_SEGMENT_BYTES = 20 * MIB", "LARGE_SEGMENT_BYTES = 10 * MIB", "allocator"),
    Planted("allocator/blocks.py", "if size_bytes < MIN_OWN_SEGMENT_BYTES", "if size_bytes <= MIN_OWN_SEGMENT_BYTES", "allocator"),
    Planted("allocator/caching.py", "if rest_bytes < MIN_BLOCK_BYTES:", "if rest_bytes <= MIN_BLOCK_BYTES:", "other_sources"),
    Planted(
        "allocator/caching.py",
        "elif rest_bytes <= SMALL_REQUEST_BYTES or",
        "elif rest_bytes < SMALL_REQUEST_BYTES or",
        "allocator other_sources",
    ),
    Planted("allocator/caching.py", "index = prefer_less_expandable(free, index)", "pass", "other_sources"),
    # exit codes, doors and what is written
    Planted("values/advice.py", "3 if Fit.UNCERTAIN in fits else 1", "1", "verdict ladder cli"),
    Planted("values/check.py", "any(finding.level is Level.ERROR for finding in self.findings)", "False", "check_exit check"),
    Planted("cli/run.py", "shown(' '.join(message.split()))", "message", "hostile_inputs"),
    Planted("render/check.py", '.replace("\\n", "%0A")', "", "other_sources"),
    Planted("render/check.py", '.replace(",", "%2C")', "", "check other_sources"),
    Planted("cli/files.py", "text, flag, said, over=False)", "text, flag, said, over=True)", "configs"),
    Planted("ledger/book.py", '"BEGIN IMMEDIATE"', '"BEGIN"', "runs"),
    Planted("adapters/config.py", '(".bin", ".pt", ".pth", ".ckpt")', "()", "adapter hostile_inputs"),
    Planted("yaml_files.py", "loader = yaml.SafeLoader(text)", "loader = yaml.UnsafeLoader(text)", "hostile_inputs check"),
    Planted("yaml_files.py", "MOST_NODES = 100_000", "MOST_NODES = 10**12", "hostile_inputs check"),
    Planted("bounded.py", "if not stat.S_ISREG(held.st_mode):", "if False:", "hostile_inputs"),
    Planted("bounded.py", "raw = file.stream.read(limit_bytes + 1)", "raw = file.stream.read()", "hostile_inputs"),
    Planted("adapters/config.py", "math.sqrt(rank) if self.use_rslora else rank", "rank", "adapter"),
    Planted("adapters/truncate.py", "math.sqrt(self.rank) if use_rslora else self.rank", "self.rank", "adapter"),
    Planted("devices/sizes.py", "smallest = min(sold", "smallest = max(sold", "gpus"),
    Planted("calibration/store.py", "if calibration.formulas != digest():", "if False:", "calibrate"),
    Planted("calibration/run.py", "MEMORY_SHARE = 0.9", "MEMORY_SHARE = 1.5", "other_sources"),
    Planted("ledger/facts.py", '"diverged": record.has_diverged,', '"diverged": False,', "other_sources runs"),
)


def outcome(fault: Planted) -> str:
    """What becomes of a fault: noticed, by a test or by the limits of time and memory, or not; or the row is no longer one."""
    path = ROOT / "advisor" / fault.file
    source = path.read_text(encoding="utf-8")
    if fault.right not in source:
        return "is no longer in its file"
    tests = [f"{ROOT}/tests/test_{name}.py" for name in fault.tests.split()]
    pid = os.fork()
    if pid == 0:
        try:
            child(f"advisor/{fault.file}", source.replace(fault.right, fault.wrong, 1), [Stage([name], MOST_CPU_S) for name in tests])
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return "noticed" if code < 0 else {0: "survives", 1: "noticed"}.get(code, f"ended with {code}")


def main() -> int:
    """Plants them one after another; first of all the tests must pass with nothing planted, or every fault would seem to be noticed."""
    load_libraries()
    chosen = [fault for fault in FAULTS if all(word in fault.file for word in sys.argv[1:])]
    bad = 0
    for name in sorted({name for fault in chosen for name in fault.tests.split()}):
        said = outcome(Planted("__init__.py", "advisor", "advisor", name))
        if said != "survives":
            sys.stderr.write(f"error: test_{name}.py with nothing planted: {said}; it must pass\n")
            return 2
    for fault in chosen:
        said = outcome(fault)
        bad += said != "noticed"
        sys.stdout.write(f"{said}: {fault.file}: {fault.right.splitlines()[0]}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - bad} of {len(chosen)} noticed\n")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
