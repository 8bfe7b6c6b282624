"""The processes that answer: as many as there are processors, what they answered lately, and no longer a queue than is worth its wait."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from advisor.errors import AdvisorError
from advisor.page.question import Question

MOST_PROCESSES = 4
"""Judgement: an answer takes a tenth of a second, and the page has few readers."""
MOST_WAITING = 64
"""Judgement: who waits behind more than that has long changed the question."""
MOST_KEPT = 512
"""Answers: some ten megabytes."""
KEPT_SECONDS = 60
"""Judgement: a calibration of a card counts a minute later."""
_CHANGING = ("local", "cpu")
"""Cards of this machine, whose free memory is another one each time."""


class BusyError(AdvisorError):
    """Too many questions wait."""


class Pool:
    """Runs calls in other processes. `start` makes the executor; it is called again where a process has died."""

    def __init__(self, start: Callable[[], Executor]) -> None:
        self._start = start
        self._executor = start()
        self._waiting = 0
        self._kept: OrderedDict[tuple[Any, ...], tuple[float, Any]] = OrderedDict()

    async def ask(self, call: Callable[..., Any], question: Question, *more: Any) -> Any:
        """What `call` says to a question, now or less than a minute ago. Raises BusyError where too many wait."""
        key = (call, question, *more)
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() - kept[0] < KEPT_SECONDS:
            self._kept.move_to_end(key)
            return kept[1]
        answer = await self._asked(call, question, *more)
        if question.gpu.strip().lower() not in _CHANGING:
            self._keep(key, answer)
        return answer

    async def _asked(self, call: Callable[..., Any], *arguments: Any) -> Any:
        if self._waiting >= MOST_WAITING:
            raise BusyError("too many questions are waiting; ask again in a moment")
        self._waiting += 1
        executor = self._executor
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, call, *arguments)
        except BrokenProcessPool:  # the system has ended one, for memory: the next question gets new ones
            if executor is self._executor:
                self._executor = self._start()
            raise
        finally:
            self._waiting -= 1

    def _keep(self, key: tuple[Any, ...], answer: Any) -> None:
        self._kept[key] = (time.monotonic(), answer)
        self._kept.move_to_end(key)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def close(self) -> None:
        """End the processes, whatever they are at."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def processes() -> ProcessPoolExecutor:
    """Processes that are ready to answer: started now, and not when the first question comes."""
    number = max(1, min(MOST_PROCESSES, os.cpu_count() or 1))
    executor = ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)
    for _ in range(number):
        executor.submit(_warm)
    return executor


def _begin() -> None:
    """Prepare a process: Ctrl-C is its parent's matter, and it ends when that does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(0)


def _warm() -> None:
    """Load what every answer needs, once."""
    from advisor.page.answers import reply

    reply(Question())
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection need walk it
