"""Runs the page on this machine until it is told to stop."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec

from advisor.errors import InvalidInputError, MissingExtraError
from advisor.page.question import Field, Question

HOST = "127.0.0.1"
_TOKEN_BYTES = 32
"""As Python's documentation of `secrets` calls enough (How many bytes should tokens use?)."""
_NEEDED = ("starlette", "uvicorn", "jinja2", "vl_convert")


def need() -> None:
    """Raise MissingExtraError where what the page is made of is not installed."""
    if any(find_spec(name) is None for name in _NEEDED):
        raise MissingExtraError(f"the page needs {', '.join(_NEEDED[:3])} and vl-convert: pip install 'finetune-advisor[ui]'")


def listening(port: int) -> socket.socket:
    """A socket that listens on this machine alone, at a port of the system's choice for 0. Raises InvalidInputError for one in use."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.bind((HOST, port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise InvalidInputError(f"--port {port} cannot be used: {error.strerror}; leave it out for a free one") from None
    return found


def serve(fields: tuple[Field, ...], first: Question, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page until SIGINT or SIGTERM; `ready` is told its address, with the token of this run, once it can be opened.

    Raises MissingExtraError without the extra `ui`, InvalidInputError for a port that is in use.
    """
    need()
    import uvicorn

    from advisor.page.app import Page
    from advisor.page.door import Door
    from advisor.page.pool import Pool, processes

    with closing(listening(port)) as door, closing(Pool(processes)) as pool:
        token, own_port = secrets.token_urlsafe(_TOKEN_BYTES), door.getsockname()[1]
        app = Door(Page(fields, pool).app(), token, own_port)
        settings = {"lifespan": "off", "ws": "none", "http": "h11", "log_level": "error", "access_log": False, "server_header": False}
        server = uvicorn.Server(uvicorn.Config(app, **settings))
        ready(f"http://{HOST}:{own_port}/?token={token}&{first.query}")
        server.run(sockets=[door])
