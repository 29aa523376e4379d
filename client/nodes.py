"""Which nodes there are, and which to ask first.

What it is: `node_url`, which checks an address, and `Resting`, which remembers who failed lately.

What it assumes and guarantees: the caller lists its nodes nearest first. A node that failed is
asked last until it has rested: a second at first, twice as long with each further failure, up to
half a minute. Then the nearest comes first again. No node is ever left out altogether.

What it does not know: why a node failed, and which requests there are.

Where the idea is from: the passive health checks of common proxies (nginx's `fail_timeout`).
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from client.errors import BadInput

REST_MIN_S = 1.0
REST_MAX_S = 30.0

#: What no URL has, and whoever takes one apart leaves out, or takes for its end.
_IN_NO_URL = re.compile(r"""[^!-~]|["<>\\^`{|}?#]""")


def node_url(text: str) -> str:
    """The address in its one form, without a slash at its end.

    Raises BadInput when it cannot be the address of a node.
    """
    if "@" in text:  # looked at first, for what is refused otherwise is shown
        raise BadInput("A node's address carries no user and no password. Nothing was sent.")
    try:
        parts = urlsplit(text)
        # Reading the port is what checks it, and what looks a host up encodes it so.
        usable = parts.scheme in ("http", "https") and bool((parts.hostname or "").encode("idna"))
        usable = usable and parts.port != 0 and not _IN_NO_URL.search(text)
    except ValueError:
        usable = False
    if not usable:
        raise BadInput(
            f"{text!r} is not the address of a node; give one such as http://127.0.0.1:8001, "
            "with no query and no fragment. Nothing was sent."
        )
    return text.rstrip("/")


def node_urls(texts: Sequence[str]) -> tuple[str, ...]:
    """All addresses, each once, in the order given. Raises BadInput when there is none."""
    if isinstance(texts, str):
        raise BadInput(f"Give a list of addresses, such as [{texts!r}]. Nothing was sent.")
    urls = tuple(dict.fromkeys(node_url(text) for text in texts))
    if not urls:
        raise BadInput("Give the address of at least one node. Nothing was sent.")
    return urls


@dataclass(slots=True)
class _Rest:
    until: float
    lasts_s: float


class Resting:
    """The nodes that failed lately."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._rests: dict[str, _Rest] = {}

    def failed(self, node: str) -> None:
        """The node rests from now on, longer each time that it fails after a rest."""
        now = self._now()
        rest = self._rests.setdefault(node, _Rest(until=now, lasts_s=REST_MIN_S / 2))
        # Requests that were under way together fail together: that is one failure.
        if rest.until <= now:
            rest.lasts_s = min(2 * rest.lasts_s, REST_MAX_S)
            rest.until = now + rest.lasts_s

    def answered(self, node: str) -> None:
        """The node is well."""
        self._rests.pop(node, None)

    def until(self, node: str) -> float:
        """When the node will have rested; 0.0 when it need not rest."""
        rest = self._rests.get(node)
        return rest.until if rest is not None and rest.until > self._now() else 0.0
