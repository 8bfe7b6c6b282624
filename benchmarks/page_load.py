"""How long does the page of `advise ui` take for a change while many use it, and does it refuse what is malformed?

python -m benchmarks.page_load               50 users with 20 changes each, then 10,000 malformed requests; some three minutes

Everything happens on this machine's loopback. A user has a model and a card, and changes one field of the form, at random moments, every
five seconds on average (judgement: the time to read a verdict). What is counted is the time from a change's request to the whole answer.
Exit code 1: a change took 150 ms or longer at the 95th percentile, or a malformed request was not answered by 4xx.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from statistics import quantiles
from typing import NamedTuple
from urllib.parse import urlencode

from advisor.page.question import Question

MODELS = (
    "llama-3.1-8b",
    "llama-70b",
    "qwen2.5-7b",
    "qwen3-8b",
    "mistral-7b",
    "gpt-oss-20b",
    "mixtral-8x7b",
    "llama-3.2-1b",
    "modernbert-base",
)
CARDS = ("t4", "l4", "rtx 4090", "a100 80gb", "h100", "24GB", "80GB", "rtx 3060")
CHANGES = {
    "rank": ("8", "16", "32", "64", "128"),
    "seq_len": ("512", "1k", "2k", "4k", "8k"),
    "batch_size": ("1", "2", "4", "8"),
    "method": ("", "lora", "qlora", "dora", "full"),
    "gpus": ("", "2", "4"),
    "checkpointing": ("", "yes", "no"),
    "optimizer": ("", "adamw_8bit", "adamw_torch"),
}
SLOWEST_MS = 150
WORKERS = 16
"""Connections that send what is malformed."""


class Place(NamedTuple):
    """Where the page is, and the cookie that opens it."""

    port: int
    cookie: str


class Server(NamedTuple):
    """The command, as a user starts it."""

    process: subprocess.Popen[str]
    place: Place


def started() -> Server:
    process = subprocess.Popen([sys.executable, "-m", "advisor", "ui", "--no-browser"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r":(\d+)/\?token=([\w-]+)", process.stdout.readline())
    assert found is not None
    return Server(process, Place(int(found[1]), f"advise-{found[1]}={found[2]}"))


def request(place: Place, target: str, **headers: str) -> bytes:
    """A request of the page itself; `headers` are put in place of its own."""
    own = {"Host": f"127.0.0.1:{place.port}", "Cookie": place.cookie, "Connection": "close", **headers}
    return f"GET {target} HTTP/1.1\r\n{''.join(f'{name}: {value}{chr(13)}{chr(10)}' for name, value in own.items())}\r\n".encode("latin-1")


async def status(place: Place, sent: bytes) -> int:
    """Send a request and read its whole answer. 0: the connection was closed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    try:
        writer.write(sent)
        await writer.drain()
        answer = await reader.read()
    except ConnectionError:
        return 0
    finally:
        writer.close()
    found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    return int(found[1]) if found else 0


# ------------------------------------------------------------------------------------------------------ users


async def user(place: Place, chance: random.Random, changes: int, pause_s: float) -> list[tuple[float, int]]:
    """Milliseconds and status of each change that one user makes."""
    asked = {"model": chance.choice(MODELS), "gpu": chance.choice(CARDS), "beside": Question().beside, "show": "answer"}
    took = []
    for _ in range(changes):
        await asyncio.sleep(chance.expovariate(1 / pause_s))
        field = chance.choice([*CHANGES])
        asked[field] = chance.choice(CHANGES[field])
        began_s = time.perf_counter()
        answered = await status(place, request(place, f"/answer?{urlencode(asked)}"))
        took.append((1000 * (time.perf_counter() - began_s), answered))
    return took


async def all_users(place: Place, users: int, changes: int, pause_s: float) -> list[tuple[float, int]]:
    await status(place, request(place, "/answer"))  # until the page is ready
    told = await asyncio.gather(*(user(place, random.Random(number), changes, pause_s) for number in range(users)))
    return [one for each in told for one in each]


# ------------------------------------------------------------------------------------------------------ what is malformed


def malformed(place: Place, chance: random.Random) -> Iterator[bytes]:
    """Requests that no page sends, for ever, of every kind in turn."""

    def text(length: int) -> str:
        """No name of anything, and no number."""
        return "zzz-" + "".join(chr(chance.randrange(1, 0x2FF)) for _ in range(length))

    while True:
        yield request(place, f"/answer?{urlencode({text(5): text(9)})}")
        yield request(place, f"/answer?{urlencode({'model': text(12)})}")
        yield request(place, f"/answer?{urlencode({'model': '../' * chance.randrange(1, 9) + 'etc/passwd'})}")
        yield request(place, f"/answer?{urlencode({'gpu': text(12)})}")
        yield request(place, f"/answer?{urlencode({'rank': text(4)})}")
        yield request(place, f"/answer?{urlencode({'show': text(4)})}")
        yield request(place, f"/answer?model={'%ff' * chance.randrange(1, 60)}")
        yield request(place, f"/answer?model={'x' * chance.randrange(4001, 9000)}")
        yield request(place, "/../../etc/passwd")
        yield request(place, f"/file/{chance.choice(('..', '%2e%2e', 'exe', '%00'))}")
        yield request(place, f"/file/json?{urlencode({'model': '/etc/passwd'})}")
        yield request(place, "/answer", Host="evil.example")
        yield request(place, "/answer", Origin="http://evil.example")
        yield request(place, "/answer", Cookie=f"advise-{place.port}={chance.random()}")
        yield request(place, "/answer", Cookie="=" * chance.randrange(1, 3000))
        yield request(place, "/answer").replace(b"GET", chance.choice((b"POST", b"PUT", b"DELETE", b"OPTIONS", b"BREW")), 1)
        yield request(place, "/answer").replace(b"HTTP/1.1", chance.choice((b"HTTP/9", b"", b"HTTP")), 1)
        yield chance.randbytes(chance.randrange(20, 400)) + b"\r\n\r\n"
        yield b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n"


async def all_malformed(place: Place, requests: int) -> Counter[int]:
    """How often each status was the answer."""
    told: Counter[int] = Counter()
    left = iter(range(requests))
    made = malformed(place, random.Random(0))

    async def sender() -> None:
        for _ in left:
            told[await status(place, next(made))] += 1

    await asyncio.gather(*(sender() for _ in range(WORKERS)))
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between a user's changes, on average")
    parser.add_argument("--malformed", type=int, default=10_000)
    arguments = parser.parse_args()
    server = started()
    try:
        took = asyncio.run(all_users(server.place, arguments.users, arguments.changes, arguments.pause))
        told = asyncio.run(all_malformed(server.place, arguments.malformed))
    finally:
        server.process.terminate()
        server.process.wait()
    cuts_ms = quantiles([ms for ms, _ in took], n=100)
    others = {status: count for status, count in told.items() if not 400 <= status < 500}
    print(f"{len(took):,} changes of {arguments.users} users, statuses {dict(Counter(status for _, status in took))}")
    print(f"p50 {cuts_ms[49]:.0f} ms, p95 {cuts_ms[94]:.0f} ms, p99 {cuts_ms[98]:.0f} ms")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"malformed: {dict(sorted(told.items()))}")
    print(f"processor time of the page: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} s")
    return int(cuts_ms[94] >= SLOWEST_MS or bool(others))


if __name__ == "__main__":
    sys.exit(main())
