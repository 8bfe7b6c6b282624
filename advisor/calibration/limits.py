"""Keeps the worker from taking the machine down: a limit that the system enforces where it can, and a watch where it cannot."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

PARENT_WATCH_S = 1.0
WATCH_S = 0.1
"""Between two looks at the resident memory. Judgement: a CPU fills about a GiB in that time."""


def rss_bytes() -> int:
    """Resident memory of this process now."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no Linux
        import psutil

        return int(psutil.Process().memory_info().rss)


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # getrusage(2): KiB on Linux, bytes on macOS


def limit_data(limit_bytes: int) -> bool:
    """Let the system refuse private memory beyond the limit, so that it ends as an error and not as a kill.

    False where there is no such limit.

    RLIMIT_DATA counts private writable pages since Linux 4.7 (setrlimit(2)); RLIMIT_AS would count what libraries merely map.
    """
    if sys.platform != "linux":
        return False
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    return True


def watch(limit_bytes: int, on_excess: Callable[[int], None]) -> None:
    """Call `on_excess` from a thread once the resident memory is above the limit."""

    def look() -> None:
        while True:
            held = rss_bytes()
            if held > limit_bytes:
                on_excess(held)
                return
            time.sleep(WATCH_S)

    threading.Thread(target=look, daemon=True, name="memory-watch").start()


def watch_parent(pid: int) -> None:
    """End this process once that one is gone: nobody reads what it would still find."""

    def look() -> None:
        while _is_alive(pid):
            time.sleep(PARENT_WATCH_S)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=look, daemon=True, name="parent-watch").start()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 asks only (kill(2))
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
