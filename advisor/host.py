"""This machine's processor, as a card: what `--gpu cpu` means, and what a calibration on it is kept under."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

from advisor.errors import InvalidInputError
from advisor.units import format_size
from advisor.values import GpuSpec

CPU = "cpu"
CPU_VENDOR = "CPU"


def this_cpu() -> GpuSpec:
    """The processor, with the memory that is free now. Its speeds are unknown until `advise calibrate --device cpu` has run.

    Raises InvalidInputError where the system does not say how much memory is free.
    """
    free_bytes = available_bytes()
    name = cpu_name()
    return GpuSpec(
        name=name,
        vendor=CPU_VENDOR,
        usable_bytes=free_bytes,
        usable_source="free memory now, as the system reports it",
        unified_memory=True,
        resolved_from=f"'{CPU}' = {name}: {format_size(free_bytes)} free now",
    )


@cache
def cpu_name() -> str:
    """The processor's name as the system tells it, and how many of its cores this process may use."""
    return f"{_model()}, {cores()} core{'s' if cores() > 1 else ''}"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()


def available_bytes() -> int:
    """Memory that can still be had, within the limit of a container (cgroup v2 `memory.max`)."""
    found = [size for size in (_meminfo("MemAvailable"), _left_of_container()) if size is not None]
    if not found and (total := _sysctl("hw.memsize")).isdecimal():
        found = [int(total)]
    if not found:
        raise InvalidInputError(f"--gpu {CPU}: this system does not say how much memory is free; give a size, like --gpu 16GiB")
    return max(min(found), 1)


def _meminfo(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)  # proc(5): in KiB


def _left_of_container() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return int(limit) - int(used) if limit.isdecimal() else None


def _sysctl(name: str) -> str:
    """macOS's answer; empty elsewhere."""
    if platform.system() != "Darwin":
        return ""
    asked = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else ""
