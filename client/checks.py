"""What callers give, checked before anything is sent, and put as a request says it.

What it is: functions, each from an argument to a part of a request: a path, headers, a body.

What it assumes and guarantees: what a node would refuse for its form is refused here with BadInput,
which says what was wrong, and that nothing was sent. Whatever the name, the path has just as many
parts as the route: no slash and no dots of a name are taken for those of the path.

What it does not know: what is asked, and how it is sent.

Where the idea is from: RFC 3986 for the quoting; the limits are those of the nodes.
"""

from urllib.parse import quote

from client.errors import BadInput

TIMEOUT_MIN_S = 0.01
TIMEOUT_MAX_S = 3600.0
#: What a node accepts as patience.
PATIENCE_MAX_S = 30.0
KEY_MAX_BYTES = 512
#: A hundred years, which is what a node accepts.
TTL_MAX_S = 100 * 365 * 24 * 60 * 60


def key(given: str) -> str:
    """A key. Raises BadInput when it is none."""
    if not isinstance(given, str):
        raise BadInput(f"A key is text, not {type(given).__name__}; nothing was sent.")
    try:
        size = len(given.encode())
    except UnicodeEncodeError:
        raise BadInput(f"The key {given!r} is not UTF-8; nothing was sent.") from None
    if not 1 <= size <= KEY_MAX_BYTES:
        raise BadInput(
            f"A key has 1 to {KEY_MAX_BYTES} bytes, and this one has {size}; nothing was sent."
        )
    return given


def key_path(given: str, route: str = "/kv") -> str:
    """The path of this key under a route. Raises BadInput when it is no key."""
    # Slashes are quoted as well, so that no proxy takes `a//b` or `a/../b` for another path.
    return f"{route}/{_quoted(key(given))}"


def fault_path(peer: str) -> str:
    """The path of the faults of the link to this peer. Raises BadInput without a name."""
    if not peer:
        raise BadInput("Name the peer, such as B; nothing was sent.")
    return f"/faults/{_quoted(peer)}"


def member_path(member: str) -> str:
    """The path of this member. Raises BadInput without a name."""
    if not member:
        raise BadInput("Name the member, such as D; nothing was sent.")
    return f"/members/{_quoted(member)}"


def value(given: bytes | str) -> tuple[bytes, str]:
    """The bytes to store, and the content type they have when none is given.

    Raises BadInput when it is neither bytes nor text of UTF-8.
    """
    if isinstance(given, str):
        try:
            return given.encode(), "text/plain; charset=utf-8"
        except UnicodeEncodeError:
            raise BadInput("The text is not UTF-8; give bytes. Nothing was sent.") from None
    if not isinstance(given, bytes):
        raise BadInput(f"A value is bytes or text, not {type(given).__name__}; nothing was sent.")
    return given, "application/octet-stream"


def content_type(given: str | None) -> str | None:
    """The content type, if one is given. Raises BadInput when it is none."""
    if given is not None and not (given.strip() and given.isascii() and given.isprintable()):
        raise BadInput(f"{given!r} is not a content type; nothing was sent.")
    return given


def prefix(given: str) -> str:
    """What keys begin with. Raises BadInput when none can."""
    try:
        given.encode()
    except (AttributeError, UnicodeEncodeError):
        raise BadInput(f"A prefix is text of UTF-8, not {given!r}; nothing was sent.") from None
    return given


def absence(if_none_match: str | None) -> None:
    """A write may want that its key has no value, and no more. Raises BadInput."""
    if if_none_match not in (None, "*"):
        raise BadInput(f'if_none_match is "*" or nothing, not {if_none_match!r}; nothing was sent.')


def conditions(if_match: str | None, if_none_match: str | None) -> dict[str, str]:
    """The headers that say what the key must hold before it is written. Raises BadInput for what
    no header can say, or no node looks at."""
    absence(if_none_match)
    given = {"If-Match": if_match, "If-None-Match": if_none_match}
    return {name: _in_header(name, text) for name, text in given.items() if text is not None}


def idempotency(key: str | None) -> dict[str, str]:
    """The header that names a request which may be sent again. Raises BadInput when it is none."""
    if key is None:
        return {}
    name = "Idempotency-Key"
    # Blanks around it would be left out on its way: it would be the key of another request.
    if not 1 <= len(_in_header(name, key)) <= 255 or key != key.strip():
        raise BadInput(
            f"{name} has 1 to 255 characters, with no blanks around them; nothing was sent."
        )
    return {name: key}


def deferral(wanted: bool, **others: object) -> dict[str, str]:
    """The header that lets a node do a write later. Raises BadInput beside what asks of the write
    what is not known before it is done."""
    given = [name for name, value in others.items() if value is not None]
    if wanted and given:
        raise BadInput(
            f"With {given[0]} a write cannot be deferred: it is looked at when the write is done, "
            "and nobody could be told. Nothing was sent."
        )
    return {"Prefer": "respond-async"} if wanted else {}


def replicas(count: int | None) -> dict[str, str]:
    """The part of a query that says how many nodes are to hold a write."""
    return {} if count is None else {"replicas": str(count)}


def ttl(seconds: object, name: str = "ttl_s") -> float | None:
    """How long a value lives, if not for ever. Raises BadInput when no node would accept it."""
    if seconds is None:
        return None
    if not isinstance(seconds, int | float) or not 1e-6 <= seconds <= TTL_MAX_S:
        raise BadInput(
            f"{name} is a number of seconds, more than 0 and at most {TTL_MAX_S}, not {seconds!r}; "
            "nothing was sent."
        )
    return seconds


def lifetime(seconds: float | None) -> dict[str, str]:
    """The part of a query that says how long a value lives. Raises BadInput as `ttl` does."""
    seconds = ttl(seconds)
    return {} if seconds is None else {"ttl": f"{seconds:.6f}".rstrip("0").rstrip(".")}


def timeout(seconds: float) -> float:
    """The timeout. Raises BadInput when no request could end by it, or it is as good as none."""
    return _checked_seconds("timeout_s", seconds, TIMEOUT_MIN_S, TIMEOUT_MAX_S)


def patience(seconds: float) -> float:
    """The patience. Raises BadInput when no node would accept it."""
    return _checked_seconds("patience_s", seconds, 0, PATIENCE_MAX_S)


def _checked_seconds(name: str, seconds: float, least: float, most: float) -> float:
    if not least <= seconds <= most:
        raise BadInput(
            f"{name} is {least:g} to {most:g} seconds, not {seconds!r}; nothing was sent."
        )
    return seconds


def _in_header(name: str, text: object) -> str:
    if not (isinstance(text, str) and text.isascii() and text.isprintable()):
        raise BadInput(f"{name} is printable ASCII, not {text!r}; nothing was sent.")
    return text


def _quoted(part: str) -> str:
    try:
        quoted = quote(part, safe="")
    except UnicodeEncodeError:
        raise BadInput(f"{part!r} is not UTF-8; nothing was sent.") from None
    # `quote` leaves dots alone, and these two are not names in a path.
    return quoted.replace(".", "%2E") if part in (".", "..") else quoted
