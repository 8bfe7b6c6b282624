"""Facts that a text names in brackets, and where they stand: for every renderer that can link."""

from __future__ import annotations

import re
from functools import cache

CITED = re.compile(r"\[([A-Z]+\d+(?:, [A-Z]+\d+)*)\]")
""" "[C4, C5]"."""


@cache
def urls() -> dict[str, str]:
    """Return the addresses of the facts' sources that a link can hold, by the facts' ids."""
    from advisor.ladder.knowledge import sources  # late: most screens are drawn without links

    return {
        name: url
        for name, url in sources().items()
        if url.startswith("https://") and url.isascii() and url.isprintable() and " " not in url
    }
