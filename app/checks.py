"""Reading a request: each function gives one part of it, checked, or says what is wrong with it.

Assumes nothing of what clients send. Guarantees that what is refused here has done nothing.

Does not know what the parts are for.
"""

import math
import re
from typing import Final
from urllib.parse import unquote_to_bytes

from aiohttp import web

from app import errors
from app.errors import listing
from app.write import DEFAULT_CONTENT_TYPE, content_type_problem, user_key_problem

WAIT_DEFAULT_S: Final = 1.0
WAIT_MAX_S: Final = 30.0
_CONDITIONS: Final = (
    *("If-Match", "If-None-Match", "If-Unmodified-Since"),
    *("Content-Range", "Idempotency-Key"),
)
"""Headers that say when, or to which part, a write is to be done."""
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?|\.[0-9]+")


def key(request: web.Request) -> str:
    """The user key in the path. Raises BadKey."""
    # From the path as it came: aiohttp's decoding hides bytes that are not UTF-8. What stands
    # before the key may be encoded as well: `/%6Bv/x` is `/kv/x`.
    _, _, encoded = request.rel_url.raw_path.split("/", 2)
    try:
        name = unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        raise errors.BadKey("The key is not UTF-8. Nothing was done.") from None
    if problem := user_key_problem(name):
        raise errors.BadKey(f"The key cannot be used: {problem}. Nothing was done.")
    return name


def unconditional(request: web.Request) -> None:
    """The request asks for a write and nothing more. Raises UnsupportedHeader.

    To write in spite of a condition that is not looked at would be to write over somebody's work.
    """
    if conditions := [name for name in _CONDITIONS if name in request.headers]:
        raise errors.UnsupportedHeader(
            f"This version does not have {listing(conditions)}, and does not ignore it. Nothing "
            "was done. Leave it out to write in any case."
        )


def known_parameters(request: web.Request, *known: str) -> None:
    """The query has no other parameters than these, each at most once. Raises BadParameter."""
    if repeated := sorted({name for name in request.query if len(request.query.getall(name)) > 1}):
        raise errors.BadParameter(
            f"The parameter {listing(repeated)} stands there more than once. Nothing was done."
        )
    unknown = sorted(set(request.query) - set(known))
    if unknown:
        raise errors.BadParameter(
            f"Unknown parameter {listing(unknown)}: this request takes "
            f"{listing(known) if known else 'none'}. Nothing was done."
        )


def flag(request: web.Request, name: str) -> bool:
    """Whether the parameter is `true`; it may be absent. Raises BadParameter."""
    text = request.query.get(name, "false")
    if text not in ("true", "false"):
        raise errors.BadParameter(f"?{name}= is true or false, not {text!r}. Nothing was done.")
    return text == "true"


def patience_s(request: web.Request) -> float:
    """How many seconds the request may wait for its causal context. Raises BadParameter."""
    text = request.query.get("wait")
    if text is None:
        return WAIT_DEFAULT_S
    # Not all that Python takes for a number: `1_0`, other scripts' digits, blanks around it.
    seconds = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not 0 <= seconds <= WAIT_MAX_S:
        raise errors.BadParameter(
            f"?wait= is a number of seconds from 0 to {WAIT_MAX_S:g}, not {text!r}. "
            "Nothing was done."
        )
    return seconds


async def body(request: web.Request, limit: int, what: str, setting: str | None) -> bytes:
    """The whole body, if it is no larger than `limit` bytes.

    Raises TooLarge, UnsupportedEncoding, BadParameter.
    """
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise errors.UnsupportedEncoding(
            f"The {what} is encoded ({encoding[:40]}), and this node takes it only as it is. "
            "Nothing was done. Send it without Content-Encoding."
        )
    hint = f" ({setting})" if setting else ""
    too_large = errors.TooLarge(
        f"The {what} is larger than this node takes: {limit} bytes{hint}. Nothing was done."
    )
    if (request.content_length or 0) > limit:
        raise too_large
    received = bytearray()
    try:
        async for chunk in request.content.iter_any():
            received += chunk
            if len(received) > limit:
                raise too_large
    except (ConnectionError, web.RequestPayloadError):
        raise errors.BadParameter(f"The {what} broke off. Nothing was done.") from None
    return bytes(received)


def content_type(request: web.Request) -> str:
    """The type of the value in the body. Raises BadParameter."""
    text = request.headers.get("Content-Type", DEFAULT_CONTENT_TYPE)
    if problem := content_type_problem(text):
        raise errors.BadParameter(f"Content-Type: {problem}. Nothing was written.")
    return text
