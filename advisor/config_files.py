"""Finds a config.json on the disk, in the Hub's cache or on the Hub, and reads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from advisor.bounded import children, exists, is_file, is_folder, named, place, read_text, resolved
from advisor.errors import InvalidInputError, MissingExtraError, UnknownNameError
from advisor.json_files import parse_json

CONFIG = "config.json"
_LARGEST_CONFIG_BYTES = 8_000_000
"""Larger files are taken for something else. Judgement: the largest config.json known is under 100 kB."""
_CONNECT_TIMEOUT_S = 3.0
_NETWORK_TIMEOUT_S = 10.0


class Found(NamedTuple):
    id: str
    source: str
    text: str
    config: Mapping[str, object]


def looks_like_path(text: str) -> bool:
    """Written as a path, or the place of a config.json. A directory's bare name may also be a model's; then the model wins."""
    if text.startswith((".", "~", "/", os.sep)) or text.endswith((".json", "/", os.sep)):
        return True
    path = Path(text)
    return is_file(path) or is_file(path / CONFIG)


def from_path(text: str) -> Found:
    """The config.json at a path, or in the directory at a path."""
    path = place(text)
    if is_folder(path):
        file = path / CONFIG
        if not is_file(file):
            raise InvalidInputError(_no_config(path))
    elif exists(path):
        file = path
    else:
        raise InvalidInputError(f"{text}: no such file or directory; give a config.json or the directory that holds it")
    name = resolved(file.parent).name if file.name == CONFIG else file.stem
    return read_config(file, name or str(file), str(file))


def _no_config(path: Path) -> str:
    if is_file(path / "adapter_config.json"):
        return f"{path} holds an adapter, not a model: give its base model (base_model_name_or_path in adapter_config.json)"
    if any(child.suffix == ".gguf" for child in children(path)):
        return f"{path} holds GGUF files and no {CONFIG}: training needs the original model's directory"
    return f"{path} holds no {CONFIG}: give the directory of a saved Hugging Face model"


def read_config(file: Path, id: str, source: str) -> Found:
    """Reads and parses one file; the error says what is wrong with it."""
    text = read_text(file, _LARGEST_CONFIG_BYTES, "model config")
    try:
        config = parse_json(text, named(file))
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}: it is no model config") from None
    if not isinstance(config, dict):
        raise InvalidInputError(f"{named(file)} is no model config: it holds a {type(config).__name__}, not an object")
    return Found(id, source, text, config)


def from_hub(repository: str, nearest: Callable[[], tuple[str, ...]] = tuple) -> Found:
    """The config.json of a repository on the Hub, from the local cache if it is there. `nearest`: makes known names for the error."""
    try:
        from huggingface_hub import constants, try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise MissingExtraError("reading a Hub id needs huggingface_hub: pip install huggingface_hub") from error
    try:
        cached = try_to_load_from_cache(repository, CONFIG, cache_dir=constants.HF_HUB_CACHE)
    except HFValidationError as error:
        raise InvalidInputError(f"{repository!r} is no Hub id; write it as org/name") from error
    file = Path(cached) if isinstance(cached, str) else _download(repository, nearest)
    commit = file.parent.name[:12]
    return read_config(file, repository, f"Hugging Face Hub, {repository} at {commit}")


def _reachable(endpoint: str) -> bool:
    """Whether a connection to the Hub opens: asked first, because the library retries for half a minute when there is no network."""
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    if getproxies():
        return True
    address = urlsplit(endpoint)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _download(repository: str, nearest: Callable[[], tuple[str, ...]]) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    fetch = f"fetch it where there is a network (hf download {repository} {CONFIG}) or give the path of its {CONFIG}"
    unreachable = f"{repository} is neither known nor in the local cache, and the Hub cannot be reached; {fetch}"
    if constants.HF_HUB_OFFLINE:
        raise _near(f"{repository} is not in the local cache, and the Hub is switched off (HF_HUB_OFFLINE); {fetch}", nearest())
    if not _reachable(constants.ENDPOINT):
        raise _near(unreachable, nearest())
    try:
        return Path(hf_hub_download(repository, CONFIG, etag_timeout=_NETWORK_TIMEOUT_S))
    except GatedRepoError as error:
        advice = "accept its terms on its page and log in (hf auth login)"
        raise InvalidInputError(f"{repository} is gated: {advice}, or give the path of its {CONFIG}") from error
    except RepositoryNotFoundError as error:
        raise _near(f"{repository} is not on the Hub, or it is private and you are not logged in (hf auth login)", nearest()) from error
    except LocalEntryNotFoundError as error:
        raise _near(unreachable, nearest()) from error
    except EntryNotFoundError as error:
        text = f"{repository} holds no {CONFIG}: it is no Hugging Face model (GGUF files or an adapter?); give its base model"
        raise InvalidInputError(text) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no answer")
        text = f"the Hub answered {status} for {repository}; try again later, or give the path of its {CONFIG}"
        raise InvalidInputError(text) from error
    except Exception as error:  # the library's network errors share no base class over its versions (requests, httpx)
        raise InvalidInputError(f"{repository} cannot be fetched from the Hub ({type(error).__name__}); {fetch}") from error


def _near(text: str, nearest: tuple[str, ...]) -> UnknownNameError:
    """A name that is not known, with known ones that are spelt like it."""
    near = f"; known and near in name: {', '.join(nearest[:3])}" if nearest else ""
    return UnknownNameError(f"{text}{near}", nearest)
