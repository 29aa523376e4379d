"""Reading a request: each function gives one part of it, checked, or says what is wrong with it.

Assumes nothing of what clients send. Guarantees that what is refused here has done nothing.

Does not know what the parts are for.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from aiohttp import hdrs, web
from multidict import istr

from app import errors
from app.conditions import Condition, parse_tags
from app.errors import listing
from app.write import (
    DEFAULT_CONTENT_TYPE,
    KEY_MAX_BYTES,
    content_type_problem,
    microseconds,
    ttl_problem,
    user_key_problem,
)

WAIT_DEFAULT_S: Final = 1.0
WAIT_MAX_S: Final = 30.0
_UNSUPPORTED: Final = (hdrs.IF_UNMODIFIED_SINCE, hdrs.CONTENT_RANGE)
"""Headers that say when, or to which part, a write is to be done, and that are not looked at."""
# Names whose lower case is not made anew each time that one is looked for.
_CONDITIONAL: Final = (hdrs.IF_MATCH, hdrs.IF_NONE_MATCH, *_UNSUPPORTED)
_IDEMPOTENCY_KEY: Final = istr("Idempotency-Key")
_PREFER: Final = istr("Prefer")
_SITE: Final = istr("Sec-Fetch-Site")
_ENCODINGS: Final = ((hdrs.CONTENT_ENCODING, "identity"), (hdrs.TRANSFER_ENCODING, "chunked"))
"""Headers that say how a body is encoded, and what leaves it as it is."""
_NO_PARAMETERS: Final[Mapping[str, str]] = {}
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?|\.[0-9]+")


def key(request: web.BaseRequest) -> str:
    """The user key in the path. Raises BadKey."""
    # From the path as it came: aiohttp's decoding hides bytes that are not UTF-8. What stands
    # before the key may be encoded as well: `/%6Bv/x` is `/kv/x`.
    _, _, encoded = request.rel_url.raw_path.split("/", 2)
    try:
        is_plain = encoded.isascii() and "%" not in encoded  # as most are
        name = encoded if is_plain else unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        raise errors.BadKey("The key is not UTF-8. Nothing was done.") from None
    if problem := user_key_problem(name):
        raise errors.BadKey(f"The key cannot be used: {problem}. Nothing was done.")
    return name


def name(request: web.BaseRequest) -> str:
    """The name at the end of the path."""
    return unquote(request.rel_url.raw_path.rpartition("/")[2])


def conditions(request: web.BaseRequest, key: str) -> list[Condition]:
    """What the request wants `key` to hold before it writes: `If-Match`, `If-None-Match: *`.

    Raises BadParameter; UnsupportedHeader for a condition that this version does not look at: to
    write in spite of it would be to write over somebody's work.
    """
    found = [name for name in _CONDITIONAL if name in request.headers]
    if not found:  # as most requests have none
        return []
    unsupported: list[str] = [name for name in found if name in _UNSUPPORTED]
    wanted = []
    if (text := _field(request, hdrs.IF_MATCH)) is not None:
        if text == "*":
            wanted.append(Condition.exists(key))
        else:
            strong, _weak = _tags("If-Match", text)
            wanted.append(Condition.matches(key, strong))
    if (text := _field(request, hdrs.IF_NONE_MATCH)) is not None:
        if text == "*":
            wanted.append(Condition.absent(key))
        else:
            unsupported.append("If-None-Match with ETags on a write")
    if unsupported:
        raise errors.UnsupportedHeader(
            f"This version does not have {listing(unsupported)}, and does not ignore it. Nothing "
            "was done. Leave it out to write in any case."
        )
    return wanted


def no_conditions(request: web.BaseRequest) -> None:
    """The request has no condition in its head. Raises UnsupportedHeader."""
    if found := [name for name in _CONDITIONAL if name in request.headers]:
        raise errors.UnsupportedHeader(
            f"A transaction does not have {listing(found)}, and does not ignore it. Nothing was "
            "done. Its operations have conditions of their own (if)."
        )


def idempotency_key(request: web.BaseRequest) -> str:
    """The key that the request has in order to be done once, or nothing. Raises BadParameter."""
    values = request.headers.getall(_IDEMPOTENCY_KEY, [])
    if not values:
        return ""
    key = values[0]
    if len(values) > 1 or not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
        raise errors.BadParameter(
            "Idempotency-Key is 1 to 255 printable ASCII characters, once. Nothing was done."
        )
    return key


def is_known(request: web.BaseRequest, etag: str) -> bool:
    """Whether the client says, by `If-None-Match`, that it has what this ETag names.

    Raises BadParameter.
    """
    text = _field(request, hdrs.IF_NONE_MATCH)
    if text is None or text == "*":
        return text == "*"
    strong, weak = _tags("If-None-Match", text)
    return etag.strip('"') in (*strong, *weak)


def _field(request: web.BaseRequest, name: str) -> str | None:
    values = request.headers.getall(name, [])
    return ", ".join(values).strip() if values else None


def _tags(name: str, text: str) -> tuple[list[str], list[str]]:
    tags = parse_tags(text)
    if tags is None:
        raise errors.BadParameter(
            f'{name} is * or a list of ETags such as "A:4,B:2", in their quotes, not '
            f"{text[:60]!r}. Nothing was done."
        )
    return tags


def parameters(request: web.BaseRequest) -> Mapping[str, str]:
    """The parameters in the query of the request."""
    # Most have none, which aiohttp would parse, too.
    return request.query if request.rel_url.raw_query_string else _NO_PARAMETERS


def known_parameters(request: web.BaseRequest, *known: str) -> None:
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


def flag(request: web.BaseRequest, name: str) -> bool:
    """Whether the parameter is `true`; it may be absent. Raises BadParameter."""
    text = parameters(request).get(name)
    if text is None:
        return False
    if text not in ("true", "false"):
        raise errors.BadParameter(f"?{name}= is true or false, not {text!r}. Nothing was done.")
    return text == "true"


def text(request: web.BaseRequest, name: str) -> str:
    """The parameter, which may be absent or any key, or empty. Raises BadParameter."""
    # From the query as it came: aiohttp's decoding hides bytes that are not UTF-8.
    for part in request.rel_url.raw_query_string.split("&"):
        encoded_name, _, encoded = part.partition("=")
        if unquote_to_bytes(encoded_name) == name.encode():
            try:
                value = unquote_to_bytes(encoded.replace("+", " ")).decode()
            except UnicodeDecodeError:
                raise errors.BadParameter(f"?{name}= is not UTF-8. Nothing was done.") from None
            if len(value.encode()) > KEY_MAX_BYTES:
                raise errors.BadParameter(
                    f"?{name}= has more than the {KEY_MAX_BYTES} bytes that a key may have. "
                    "Nothing was done."
                )
            return value
    return ""


def count(request: web.BaseRequest, name: str, default: int, most: int) -> int:
    """The parameter as a number from 1 to `most`. Raises BadParameter."""
    text = parameters(request).get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise errors.BadParameter(
            f"?{name}= is a whole number from 1 to {most}, not {text[:40]!r}. Nothing was done."
        )
    return int(text)


def patience_s(request: web.BaseRequest) -> float:
    """How many seconds the request may wait for its causal context. Raises BadParameter."""
    text = parameters(request).get("wait")
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


@dataclass(frozen=True, slots=True)
class Preference:
    """What a request prefers (RFC 7240): to be answered before it is done, where it would have to
    wait; and for how many seconds it waits before that."""

    respond_async: bool = False
    wait_s: float = 0.0


_NO_PREFERENCE: Final = Preference()


def preference(request: web.BaseRequest) -> Preference:
    """What the request prefers. What is not understood of that is not heeded: none is wrong."""
    if _PREFER not in request.headers:
        return _NO_PREFERENCE
    respond_async, wait_s = False, 0.0
    for part in ",".join(request.headers.getall(_PREFER, [])).split(","):
        name, _, value = part.partition(";")[0].partition("=")
        value = value.strip().strip('"')
        match name.strip().lower():
            case "respond-async":
                respond_async = True
            case "wait" if re.fullmatch(r"[0-9]{1,9}", value):
                wait_s = min(float(value), WAIT_MAX_S)
    return Preference(respond_async, wait_s)


def ttl_us(request: web.BaseRequest) -> int:
    """For how many microseconds a value is to live; 0 for ever. Raises BadParameter."""
    text = parameters(request).get("ttl")
    if text is None:
        return 0
    seconds = float(text) if _NUMBER.fullmatch(text) else math.nan
    if problem := ttl_problem(seconds):
        raise errors.BadParameter(f"?ttl= {problem}, not {text[:40]!r}. Nothing was written.")
    return microseconds(seconds)


def own_origin(request: web.BaseRequest) -> None:
    """No page of another site asks, in the browser of somebody who reaches this node.

    Raises CrossOrigin. What tells of such a page: Fetch Metadata, and in older browsers, or where
    neither site is `https`, that the origin is another host than what is asked (RFC 6454).
    """
    headers = request.headers
    site, origin = headers.get(_SITE), headers.get(hdrs.ORIGIN)
    if site is None and origin is not None:
        own = headers.get(hdrs.HOST, "").lower()
        site = "same-origin" if origin.lower().partition("://")[2] == own else "cross-site"
    if site not in (None, "same-origin", "none"):
        raise errors.CrossOrigin(
            f"A page of another site ({origin or 'unnamed'!s:.80}) asks, in a browser. Nothing was "
            "done. A program leaves out Origin and Sec-Fetch-Site; a proxy leaves Host as it is."
        )


def encoding(request: web.BaseRequest) -> str:
    """How the body is encoded, by its sender or for its way; empty if it is as it is."""
    headers, found = request.headers, []
    for header, as_it_is in _ENCODINGS:
        if header in headers:
            names = ",".join(headers.getall(header)).lower().split(",")
            found += [name.strip() for name in names if name.strip() not in ("", as_it_is)]
    return ", ".join(found)


async def body(
    request: web.BaseRequest,
    limit: int,
    what: str,
    setting: str | None,
    encodings: tuple[str, ...] = (),
) -> bytes:
    """The whole body, as it came, if it is no larger than `limit` bytes, and is as it is or has
    one of these encodings.

    Raises TooLarge, UnsupportedEncoding, BadParameter.
    """
    if (name := encoding(request)) and name not in encodings:
        raise errors.UnsupportedEncoding(
            f"The {what} is encoded ({name[:40]}), and this node takes it only as it is. "
            "Nothing was done. Send it without Content-Encoding."
        )
    if (request.content_length or 0) > limit:
        raise too_large(what, limit, setting)
    content, received = request.content, bytearray()
    try:
        if content.is_eof():  # as a rule it has come with the head
            if len(whole := content.read_nowait()) > limit:
                raise too_large(what, limit, setting)
            return whole
        while chunk := await content.readany():
            received += chunk
            if len(received) > limit:
                raise too_large(what, limit, setting)
    except (ConnectionError, web.RequestPayloadError):
        raise errors.BadParameter(f"The {what} broke off. Nothing was done.") from None
    return bytes(received)


def too_large(what: str, limit: int, setting: str | None) -> errors.TooLarge:
    """What is refused for its size; `setting` is what the limit is called, if it is one."""
    hint = f" ({setting})" if setting else ""
    return errors.TooLarge(
        f"The {what} is larger than this node takes: {limit} bytes{hint}. Nothing was done."
    )


def content_type(request: web.BaseRequest) -> str:
    """The type of the value in the body. Raises BadParameter."""
    text = request.headers.get(hdrs.CONTENT_TYPE, DEFAULT_CONTENT_TYPE)
    if problem := content_type_problem(text):
        raise errors.BadParameter(f"Content-Type: {problem}. Nothing was written.")
    return text
