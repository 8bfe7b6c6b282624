"""One small interface to what can train: its name and driver, its memory as it counts it, and waiting for it.

`None` means that the backend has no such count. Only the worker loads this module.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Literal

import torch

from advisor.calibration.limits import rss_bytes
from advisor.errors import UnsupportedError
from advisor.host import available_bytes, cpu_name

Name = Literal["cuda", "rocm", "mps", "xpu", "cpu"]


class Backend:
    """A card (or the CPU) as torch shows it. The defaults are those of a backend that counts nothing by itself."""

    name: Name

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def card(self) -> str:
        raise NotImplementedError

    def driver(self) -> str:
        return ""

    def free_bytes(self) -> int:
        raise NotImplementedError

    def synchronise(self) -> None:
        """Wait until everything that was launched has run."""

    def reset_peaks(self) -> None:
        """Begin new peaks at what is held now."""

    def empty_cache(self) -> None:
        """Give back what is reserved and idle."""

    def allocated_bytes(self) -> int | None:
        return None

    def peak_allocated_bytes(self) -> int | None:
        return None

    def peak_reserved_bytes(self) -> int | None:
        return None

    def reserved_bytes(self) -> int | None:
        return None

    def process_bytes(self) -> int | None:
        """What the driver says that this process holds."""
        return None


class Cpu(Backend):
    """Live storages are what is called allocated here; the system's allocator keeps no peaks that speak of tensors."""

    name = "cpu"

    def card(self) -> str:
        return cpu_name()

    def driver(self) -> str:
        return f"{platform.system()} {platform.release()}, {torch.get_num_threads()} threads"

    def free_bytes(self) -> int:
        return available_bytes()

    def process_bytes(self) -> int | None:
        return rss_bytes()


class _Counting(Backend):
    """A backend with torch's caching allocator: its module has the functions of torch.cuda."""

    module: Any

    def synchronise(self) -> None:
        self.module.synchronize(self.device)

    def reset_peaks(self) -> None:
        self.module.reset_peak_memory_stats(self.device)

    def empty_cache(self) -> None:
        self.module.empty_cache()

    def allocated_bytes(self) -> int | None:
        return int(self.module.memory_allocated(self.device))

    def peak_allocated_bytes(self) -> int | None:
        return int(self.module.max_memory_allocated(self.device))

    def reserved_bytes(self) -> int | None:
        return int(self.module.memory_reserved(self.device))

    def peak_reserved_bytes(self) -> int | None:
        return int(self.module.max_memory_reserved(self.device))

    def card(self) -> str:
        return str(self.module.get_device_name(self.device))

    def free_bytes(self) -> int:
        return int(self.module.mem_get_info(self.device)[0])


class Cuda(_Counting):
    name = "cuda"

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.module = torch.cuda

    def driver(self) -> str:
        """The driver's version by NVML, and the CUDA release that torch was built for."""
        found = _nvml(lambda nvml, handle: str(nvml.nvmlSystemGetDriverVersion()), self.device)
        return f"driver {found or 'unknown'}, CUDA {torch.version.cuda}"

    def process_bytes(self) -> int | None:
        """This process's line in nvidia-smi; None where the driver hides processes (containers, Windows)."""

        def own(nvml: Any, handle: Any) -> int | None:
            held = [entry.usedGpuMemory for entry in nvml.nvmlDeviceGetComputeRunningProcesses(handle) if entry.pid == os.getpid()]
            return int(held[0]) if held and held[0] else None

        found = _nvml(own, self.device)
        return found if isinstance(found, int) else None


class Rocm(_Counting):
    """AMD's cards: torch shows them under the names of CUDA."""

    name = "rocm"

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.module = torch.cuda

    def driver(self) -> str:
        version = Path("/sys/module/amdgpu/version")
        found = version.read_text(encoding="ascii").strip() if version.exists() else "unknown"
        return f"amdgpu {found}, HIP {torch.version.hip}"

    def process_bytes(self) -> int | None:
        """Video memory of this process, summed over its cards, as the kernel driver shows it (Linux
        drivers/gpu/drm/amd/amdkfd/kfd_process.c, sysfs files vram_<gpu id>); right for one card a process, as accelerate runs
        them."""
        files = sorted(Path(f"/sys/class/kfd/kfd/proc/{os.getpid()}").glob("vram_*"))
        sizes = [int(file.read_text(encoding="ascii")) for file in files]
        return sum(sizes) or None


class Xpu(_Counting):
    """Intel's cards; the same functions since torch 2.6."""

    name = "xpu"

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.module = torch.xpu

    def driver(self) -> str:
        return f"driver {getattr(torch.xpu.get_device_properties(self.device), 'driver_version', 'unknown')}"


class Mps(Backend):
    """Apple's: two running counts and no peaks, so that live storages give the peaks. Metal keeps what it took until told."""

    name = "mps"

    def card(self) -> str:
        return cpu_name().partition(",")[0]

    def driver(self) -> str:
        return f"macOS {platform.mac_ver()[0]}"

    def free_bytes(self) -> int:
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())

    def synchronise(self) -> None:
        torch.mps.synchronize()

    def empty_cache(self) -> None:
        torch.mps.empty_cache()

    def allocated_bytes(self) -> int | None:
        return int(torch.mps.current_allocated_memory())

    def reserved_bytes(self) -> int | None:
        return int(torch.mps.driver_allocated_memory())

    def peak_reserved_bytes(self) -> int | None:
        return self.reserved_bytes()


def of(device: torch.device) -> Backend:
    """The backend of the device that accelerate chose."""
    if device.type == "cuda":
        return Rocm(device) if torch.version.hip else Cuda(device)
    kinds: dict[str, type[Backend]] = {"cpu": Cpu, "mps": Mps, "xpu": Xpu}
    if device.type not in kinds:
        raise UnsupportedError(f"{device.type}: calibration knows CUDA, ROCm, MPS, XPU and the CPU; run it with --device cpu")
    return kinds[device.type](device)


def _nvml(ask: Any, device: torch.device) -> Any:
    """An answer of NVML about the card that torch means, found by its UUID; None where NVML has none."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
        return ask(pynvml, handle)
    except pynvml.NVMLError:
        return None
