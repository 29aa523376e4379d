"""Damage to messages that were good: bytes that changed on the way, and values that no node sends.

What it is: strategies that take good bodies and give bad ones, most of them nearly good.

What it assumes and guarantees: bodies are MessagePack, save where only bytes change. What comes
out may still be good, by accident; whoever uses it has to ask.

What it does not know: what the bodies mean, and what should become of them.

Where the idea is from: AFL's deterministic and havoc stages (flip, truncate, insert, splice), and
the structure-aware mutators of libprotobuf-mutator.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

Path = tuple[Any, ...]
"""The keys and positions that lead to a value in a form."""

MARKERS: Final = (
    *(b"\xc1", b"\xc7\x0c\xff", b"\xd4\x05\x01", b"\xd7\xff", b"\x80", b"\x90", b"\xa0"),
    # Lengths that nothing follows.
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),
    *(b"\xdb\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xde\xff\xff", b"\xd9\xff"),
    # Depth.
    *(b"\x91" * 200, b"\x81\xa1k" * 200, b"\x91" * 5000),
)
"""Bytes that mean much to whoever reads MessagePack."""

ODD_VALUES: Final[Sequence[Any]] = (
    *(None, True, False, "", "A", "B", "C", "Z", "B~x1", "A:1", "B\n", "\0", "x" * 600, "ä" * 300),
    *(0, 1, 2, 3, -1, 2**31, 2**32, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
    *(0.0, -0.0, 1.0, 1.5, 1e300, math.nan, math.inf, -math.inf),
    *(
        b"",
        b"\xff",
        b"x" * 600,
        [],
        {},
        [[]],
        {"": 0},
        {"B": 1},
        {"Z": 1},
        ["put"],
        ["delete", "k"],
    ),
    *(["put", "k", b"v", "text/plain", 0], ["put", "k", "v", "text/plain", 7]),
    [["delete", "k"]],
    *(msgspec.Raw(marker) for marker in MARKERS),
    msgspec.Raw(b"\xa2\xff\xfe"),  # text that is not UTF-8
    msgspec.Raw(b"\xa3\xed\xa0\x80"),  # a lone surrogate
    msgspec.Raw(b"\xd6\xff\0\0\0\1"),  # a timestamp
)
"""Values of the wrong kind, at the edge, or beyond it."""

# Copies, for what is put into a form may be changed there.
odd_values = st.sampled_from(ODD_VALUES).map(
    lambda value: deepcopy(value) if isinstance(value, list | dict) else value
)


@st.composite
def changed_bytes(
    draw: st.DrawFn, bodies: Sequence[bytes], markers: Sequence[bytes] = MARKERS
) -> bytes:
    """One of `bodies` with a few changes of its bytes; some of `markers` are put into it."""
    body = draw(st.sampled_from(bodies))
    for _ in range(draw(st.integers(1, 4))):
        here, there = sorted((draw(st.integers(0, len(body))), draw(st.integers(0, len(body)))))
        match draw(st.sampled_from(("flip", "set", "cut", "lose", "repeat", "insert", "splice"))):
            case "flip" if here < len(body):
                flipped = body[here] ^ 1 << draw(st.integers(0, 7))
                body = body[:here] + bytes([flipped]) + body[here + 1 :]
            case "set":
                body = body[:here] + draw(st.binary(min_size=1, max_size=1)) + body[here + 1 :]
            case "cut":
                body = body[:here]
            case "lose":
                body = body[:here] + body[there:]
            case "repeat":
                body = body[:there] + body[here:]
            case "insert":
                inserted = draw(st.sampled_from(markers) | st.binary(max_size=9))
                body = body[:here] + inserted + body[there if draw(st.booleans()) else here :]
            case "splice":
                other = draw(st.sampled_from(bodies))
                body = body[:here] + other[draw(st.integers(0, len(other))) :]
    return body


@st.composite
def slightly_changed_values(draw: st.DrawFn, bodies: Sequence[bytes]) -> bytes:
    """One of `bodies` with a few of its values replaced by others of their kind."""
    form = msgspec.msgpack.decode(draw(st.sampled_from(bodies)))
    for _ in range(draw(st.integers(1, 3))):
        holder, last, _ = _draw_place(draw, form)
        match holder[last]:
            case int(number):
                holder[last] = draw(st.sampled_from((number + 1, number - 1, 1, 2, 3)))
            case str():
                holder[last] = draw(st.sampled_from(_NAMES))
            case bytes():
                holder[last] = draw(st.binary(max_size=3))
            case dict(entries):
                entries[draw(st.sampled_from(_NAMES))] = draw(st.integers(1, 3))
            case list(items) if items:
                items.insert(0, deepcopy(draw(st.sampled_from(items))))
    return msgspec.msgpack.encode(form)


_NAMES: Final = ("A", "B", "B~x1", "C", "Z", "lunch", "table", "text/plain", "put")


@st.composite
def changed_values(draw: st.DrawFn, bodies: Sequence[bytes]) -> bytes:
    """One of `bodies` with a few of its values replaced, lost, repeated or named twice."""
    form = msgspec.msgpack.decode(draw(st.sampled_from(bodies)))
    for _ in range(draw(st.integers(1, 3))):
        holder, last, way = _draw_place(draw, form)
        match draw(st.sampled_from(("replace", "replace", "lose", "repeat", "add"))):
            case "replace":
                holder[last] = draw(odd_values)
            case "lose":
                del holder[last]
            case "repeat" if isinstance(holder, list):
                holder.insert(last, holder[last])
            case "repeat":
                form = _named_twice(form, way, last, draw(odd_values))
                break  # what is encoded already cannot be changed again
            case "add" if isinstance(holder, list):
                holder.append(draw(odd_values))
            case "add":
                holder[draw(st.sampled_from(("", "A", "B", "Z", "version", "more")))] = draw(
                    odd_values
                )
        if not form:
            break
    return msgspec.msgpack.encode(form)


def damaged(bodies: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of `bodies`, damaged in some way; or nothing like them at all."""
    return st.one_of(
        slightly_changed_values(bodies),
        changed_values(bodies),
        changed_bytes(bodies),
        st.binary(max_size=40),
    )


def _draw_place(draw: st.DrawFn, form: Any) -> tuple[Any, Any, Path]:
    """A map or list within `form`, the key or position of a value in it, and the way to it.

    Drawn from the outside inwards, so that what is said once in a body is not lost among what
    stands there many times; and what holds much is drawn more often than what is one value.
    """
    way: Path = ()
    while True:
        places = form.items() if isinstance(form, dict) else enumerate(form)
        step, inner = draw(
            st.sampled_from(
                [place for place in places for _ in range(3 if _holds(place[1]) else 1)]
            )
        )
        if not _holds(inner) or draw(st.integers(0, 5)) == 0:
            return form, step, way
        form, way = inner, (*way, step)


def _holds(form: Any) -> bool:
    return isinstance(form, dict | list) and bool(form)


def _named_twice(form: Any, way: Sequence[Any], key: Any, value: Any) -> Any:
    """The form with `key` a second time, and with another value, in the map at the end of `way`."""
    if way:
        form[way[0]] = _named_twice(form[way[0]], way[1:], key, value)
        return form
    pairs = [*form.items(), (key, value)]
    header = b"\xde" + len(pairs).to_bytes(2, "big")
    encode = msgspec.msgpack.encode
    return msgspec.Raw(header + b"".join(encode(k) + encode(v) for k, v in pairs))
