"""What nodes are called, and where they are reached.

Assumes nothing of the text that it is given. Guarantees that what it lets through can be a node's
id or URL, each URL in one form, so that two are equal if they are the same place.

Does not know which nodes there are.
"""

import re
from typing import Final
from urllib.parse import urlsplit

from app.settings_text import mask

NODE_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_IN_NO_URL: Final = re.compile(r"""[\s\x00-\x1f\x7f"<>\\^`{|}?#]""")
"""What a URL of a node has nowhere (RFC 3986). Who takes one apart, or asks there, leaves out some
of these: so one place would have two URLs."""


def is_node_id(text: str) -> bool:
    """Whether a node can be called so."""
    return NODE_ID_PATTERN.fullmatch(text) is not None


def parse_peers(text: str) -> dict[str, str]:
    """The peers in `B=http://host:port,C=...`. Raises ValueError that quotes the wrong part."""
    peers: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        node, equals, url = (piece.strip() for piece in part.partition("="))
        if not (node and equals and url):
            raise ValueError(f"`{mask(part)}` is not of the form NODE=http://host:port")
        if node in peers:
            raise ValueError(f"`{node}` is named twice")
        peers[node] = url
    return peers


def peer_url(node: str, url: str) -> str:
    """The URL at which `node` is reached, in one form.

    Raises ValueError for what cannot be one.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        usable = usable and not _IN_NO_URL.search(url)
    except ValueError:  # a port that is no number, a bracket that is not closed
        parts, usable = urlsplit(""), False
    if not usable or parts.path.strip("/"):
        raise ValueError(
            f"the URL of `{node}` must be http://host:port or https://host:port, with nothing "
            f"after it: {mask(url)}"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"the URL of `{node}` must not hold a password; see CLUSTER_SECRET")
    try:
        (parts.hostname or "").encode("idna")  # as whoever looks it up does
    except UnicodeError:
        raise ValueError(
            f"the URL of `{node}` must name a host that can be looked up, with 1 to 63 characters "
            f"between its dots: {mask(url)}"
        ) from None
    host = parts.netloc if "%" in parts.netloc else parts.netloc.lower()  # but for a zone's name
    return f"{parts.scheme}://{host}"
