"""Requests of clients with anything wrong in any part: refused with nothing done, or done rightly.

Each part of a request is drawn good or not, and the test knows by its own simple rules which: so
what is refused must have been bad, and what is good must be served.
"""

import asyncio
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec
from aiohttp import ClientResponse
from hypothesis import example, given
from hypothesis import strategies as st
from redis import Redis as BlockingRedis
from yarl import URL

from app.faults import Fault
from tests.effort import effort, time_enough
from tests.one_node import Client, contents, node_a

pytestmark = time_enough()

T = TypeVar("T")

VALUE_MAX: Final = 40
CONTEXT_MAX: Final = 64

# --- what is asked --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to `/kv/`, by its parts."""

    method: str
    key: bytes
    encodes_all: bool
    query: tuple[tuple[str, str], ...]
    context: str | None
    content_type: str | None
    value: bytes

    @property
    def path(self) -> str:
        safe = "" if self.encodes_all else "/~!$&'()*+,;=:@."
        # A dot alone would be taken for a step in the path by the client, and never get out.
        name = quote(self.key, safe=safe).replace(".", "%2E")
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in self.query)
        return f"/kv/{name}?{query}" if query else f"/kv/{name}"

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong with it, save that the node may not be so far yet."""
        parameters = GOOD_PARAMETERS[self.method]
        return (
            is_good_key(self.key)
            and all(value in parameters.get(name, ()) for name, value in self.query)
            and not self._waits_for_nothing
            and is_good_context(self.context or "")
            and (self.method != "PUT" or is_good_type(self.content_type))
            and (self.method != "PUT" or len(self.value) <= VALUE_MAX)
        )

    @property
    def _waits_for_nothing(self) -> bool:
        """Whether it says how long to wait, and that it is to be answered at once."""
        return ("stale", "true") in self.query and any(name == "wait" for name, _ in self.query)


def is_good_key(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return 1 <= len(key) <= 512 and not key.startswith(b"\0")


def is_good_context(context: str) -> bool:
    tokens = [token.strip() for token in context.split(",")]
    good = re.compile(r"lc1;[; ]*([A-C]:[1-9][0-9]{0,14}([; ]+|$))*")
    actors = [re.findall(r"[A-C](?=:)", token) for token in tokens]
    return (
        len(context.strip()) <= CONTEXT_MAX
        and all(good.fullmatch(token) for token in tokens if token)
        and all(len(names) == len(set(names)) for names in actors)
    )


def is_good_type(content_type: str | None) -> bool:
    if content_type is None:
        return True
    text = content_type.strip(" \t")
    return text.isascii() and text.isprintable() and 1 <= len(text) <= 255


GOOD_WAITS: Final = ("0", "0.0", "0e9")
FLAGS: Final = ("true", "false")
GOOD_PARAMETERS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "GET": {"wait": GOOD_WAITS, "siblings": FLAGS, "stale": FLAGS},
    "HEAD": {"wait": GOOD_WAITS, "siblings": FLAGS, "stale": FLAGS},
    "PUT": {"wait": GOOD_WAITS},
    "DELETE": {"wait": GOOD_WAITS},
}
GOOD_CONTEXTS: Final = (
    "",
    "lc1;",
    "lc1;,lc1;",
    " , lc1; ,",
    "lc1;A:1",
    "lc1;A:1, lc1;B:1",
    "lc1;C:9",
)
GOOD_TYPES: Final = ("text/plain", "text/html; charset=utf-8", "x", "x" * 255)
names = st.sampled_from(("siblings", "Siblings", "stale", "prefix", "", "wait ", "\0", "é"))
bad_waits = st.sampled_from(
    ("", "-1", "-0.1", "31", "nan", "inf", "soon", "0x1", "1e9", "0,1", "é")
)
queries = st.one_of(
    st.just(()),
    st.tuples(st.tuples(st.just("wait"), st.sampled_from(GOOD_WAITS) | bad_waits)),
    st.tuples(
        st.tuples(st.just("wait"), st.just("0")),
        st.tuples(names, st.sampled_from(("true", "false", "", "1", "TRUE", "é"))),
    ),
)
#: What a header can hold and a client sends.
header_text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
tokens = st.one_of(
    st.sampled_from(GOOD_CONTEXTS),
    st.text(st.sampled_from("lc1;A:7;B,s= 0~\u0661"), max_size=12).map(lambda end: "lc1;" + end),
    header_text,
    st.just("lc1;A:1," * 10),
)
keys = st.one_of(
    st.sampled_from((b"lunch", b"a/b", b"/", b"..", b"a b", b"%41", b"\0", b"k" * 512, b"k" * 513)),
    st.sampled_from((b"", b"\xff", b"\xed\xa0\x80", b"\xc3", "é".encode(), "🜚".encode() * 128)),
    st.binary(max_size=12),
    st.text(max_size=12).map(lambda text: text.encode(errors="replace")),
)


def mostly(good: st.SearchStrategy[T], bad: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Seldom `bad`, for a request has many parts and should be served as often as not."""
    return st.integers(0, 7).flatmap(lambda number: bad if number == 5 else good)


requests = st.builds(
    Asked,
    method=st.sampled_from(("GET", "HEAD", "PUT", "PUT", "DELETE")),
    key=mostly(st.sampled_from((b"lunch", b"a/b", b"%41")), keys),
    encodes_all=st.booleans(),
    query=mostly(st.just(()), queries),
    context=mostly(st.none() | st.sampled_from(GOOD_CONTEXTS), tokens),
    content_type=mostly(st.none() | st.sampled_from(GOOD_TYPES), header_text),
    value=mostly(st.binary(max_size=VALUE_MAX), st.just(bytes(VALUE_MAX + 1))),
)

AT_ONCE_AND_LATER: Final = Asked(
    "GET", b"lunch", False, (("wait", "0"), ("stale", "true")), None, None, b""
)


# --- what is answered -----------------------------------------------------------------------------


def without_waiting(asked: Asked) -> str:
    """The path, with no patience where the request has not said how much."""
    if any(name == "wait" for name, _ in asked.query):
        return asked.path
    return f"{asked.path}{'&' if asked.query else '?'}wait=0"


async def ask(client: Client, asked: Asked) -> tuple[ClientResponse, bytes]:
    headers = {}
    if asked.context is not None:
        headers["Causal-Context"] = asked.context
    if asked.content_type is not None:
        headers["Content-Type"] = asked.content_type
    url = URL(f"{str(client.make_url('/')).rstrip('/')}{without_waiting(asked)}", encoded=True)
    async with client.session.request(
        asked.method,
        url,
        headers=headers,
        data=asked.value if asked.method == "PUT" else None,
        skip_auto_headers=["Content-Type"],
    ) as response:
        return response, await response.read()


def assert_refused(response: ClientResponse, body: bytes, *, has_body: bool) -> None:
    assert 400 <= response.status < 500 or response.status == 503, body
    assert response.content_type == "application/problem+json"
    if has_body:
        fields = msgspec.json.decode(body)
        assert fields["outcome"] == "not_applied"
        assert fields["status"] == response.status
        assert len(fields["detail"]) < 2000


async def hold(url: str, several: Sequence[Asked]) -> None:
    with BlockingRedis.from_url(url) as redis:
        redis.flushdb()
        async with node_a(url, value_max_bytes=VALUE_MAX, context_max_bytes=CONTEXT_MAX) as client:
            held: dict[bytes, bytes] = {}
            for asked in several:
                before = contents(redis)
                response, body = await ask(client, asked)
                if response.status in (200, 204):
                    assert asked.is_good, asked
                elif response.status == 404:
                    assert asked.is_good and asked.method in ("GET", "HEAD"), asked
                    assert asked.key not in held
                elif response.status == 503:
                    assert asked.context and ":" in asked.context, asked
                else:
                    assert not asked.is_good, (asked, body)
                if response.status >= 400:
                    assert_refused(response, body, has_body=asked.method != "HEAD")
                if response.status >= 400 or asked.method in ("GET", "HEAD"):
                    assert contents(redis) == before
                elif asked.method == "PUT":
                    held[asked.key] = asked.value
                    assert msgspec.json.decode(body)["key"] == asked.key.decode()
                else:
                    held.pop(asked.key, None)
                if response.status == 200 and asked.method == "GET":
                    assert response.headers["Siblings"] == "1"
                    if ("siblings", "true") not in asked.query:
                        assert body == held[asked.key]
            assert set(redis.keys("kv:*")) == {b"kv:" + key for key in held}


def test_a_request_with_anything_wrong_is_refused_and_does_nothing(redis_socket: Path) -> None:
    @effort(120)
    @given(st.lists(requests, min_size=1, max_size=10))
    @example([AT_ONCE_AND_LATER])
    def check(several: list[Asked]) -> None:
        asyncio.run(hold(f"unix://{redis_socket}?db=4", several))

    check()


# --- faults ---------------------------------------------------------------------------------------

milliseconds = st.sampled_from((-1, 0, 1, 600_000, 600_001, 2**64, 10**400, 1.0, 1.5))
probabilities = st.sampled_from((-0.1, 0, 0.0, 0.5, 1, 1.0, 1.1, math.nan, math.inf))
odd: st.SearchStrategy[object] = st.one_of(
    st.none(), st.booleans(), milliseconds, st.text(max_size=3), st.just([])
)
pairs = st.one_of(
    st.tuples(st.sampled_from(("delay_ms", "jitter_ms")), milliseconds),
    st.tuples(st.sampled_from(("drop", "duplicate", "reorder")), probabilities),
    st.tuples(st.sampled_from(("cut", "no_relay")), st.booleans()),
    st.tuples(st.sampled_from((*Fault.__struct_fields__, "more", "", "é")), odd),
)


def as_json(pairs: Sequence[tuple[str, object]]) -> bytes:
    """A JSON object of these pairs, in which a name may stand twice."""
    inner = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs)
    return f"{{{inner}}}".encode(errors="replace")


fault_bodies = st.one_of(
    st.lists(pairs, max_size=3).map(as_json),
    st.binary(max_size=20),
    st.sampled_from((b"[" * 4000, b'{"drop":' * 500, b" " * 4097, b'{"cut":true}' + b"\0")),
)


async def set_faults(url: str, bodies: Sequence[bytes]) -> None:
    with BlockingRedis.from_url(url) as redis:
        redis.flushdb()
        async with node_a(url, faults=True) as client:
            for body in bodies:
                before = contents(redis)
                async with client.put("/faults/B", data=body) as response:
                    reply = await response.read()
                if response.status == 200:
                    fault = msgspec.json.decode(reply, type=Fault)
                    assert 0 <= fault.delay_ms <= 600_000 and 0 <= fault.jitter_ms <= 600_000
                    assert all(0 <= p <= 1 for p in (fault.drop, fault.duplicate, fault.reorder))
                    async with client.get("/status") as status:
                        shown = (await status.json())["peers"]["B"]["faults"]
                    assert (Fault() if shown is None else Fault(**shown)) == fault
                else:
                    assert_refused(response, reply, has_body=True)
                    assert contents(redis) == before


def test_a_fault_is_set_as_it_is_shown_or_refused_and_nothing_is_set(redis_socket: Path) -> None:
    @effort(60)
    @given(st.lists(fault_bodies, min_size=1, max_size=10))
    def check(bodies: list[bytes]) -> None:
        asyncio.run(set_faults(f"unix://{redis_socket}?db=4", bodies))

    check()
