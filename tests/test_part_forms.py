"""What a part of a snapshot is sent as: what is encoded comes back, and garbage is refused."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import part_forms
from app.errors import BadBatch
from app.snapshot import Cut, KeyState, Part
from app.vector_clock import Dot, VectorClock
from app.write import Version
from tests.fuzzing.damage import damaged
from tests.strategies import actors, clocks, content_types, keys, patient, sequences, timestamps

names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=128)
versions = st.builds(
    Version,
    st.builds(Dot, actors, sequences),
    timestamps,
    content_types,
    st.binary(),
    st.just(0) | timestamps,
)
states = st.builds(KeyState, keys, st.lists(versions, max_size=3).map(tuple), clocks)
cuts = st.builds(Cut, clocks, clocks, timestamps)
parts = st.builds(
    Part,
    *(names, names, names, st.integers(0, 10**9)),
    st.lists(states, max_size=3).map(tuple),
    st.none() | cuts,
)

PART = Part(
    *("s1", "p2", "p1", 7),
    (KeyState("lunch", (Version(Dot("B", 2), 5, "text/plain", b"soup"),), VectorClock({"C": 1})),),
    Cut(VectorClock({"B": 2, "C": 1}), VectorClock({"C": 1}), 5),
)


@patient
@given(parts)
def test_a_part_comes_back(part: Part) -> None:
    assert part_forms.decode(part_forms.encode(part)) == part


def test_a_part_that_is_truncated_anywhere_is_refused() -> None:
    body = part_forms.encode(PART)
    for size in range(len(body)):
        with pytest.raises(BadBatch, match="cannot be read"):
            part_forms.decode(body[:size])


@patient
@given(damaged([part_forms.encode(PART)]))
def test_a_damaged_part_is_refused_or_well_formed(body: bytes) -> None:
    try:
        part = part_forms.decode(body)
    except BadBatch:
        return
    assert part_forms.decode(part_forms.encode(part)) == part


@pytest.mark.parametrize(
    "change",
    [
        lambda form: form.__setitem__(0, "s 1"),
        lambda form: form.__setitem__(0, "s" * 129),
        lambda form: form.__setitem__(3, -1),
        lambda form: form.append(1),
        lambda form: form[4][0].__setitem__(0, ""),
        lambda form: form[4][0][1][0].__setitem__(0, "B C"),
        lambda form: form[4][0][1][0].__setitem__(1, 0),
        lambda form: form[4][0][1][0].__setitem__(2, 0),
        lambda form: form[4][0][1][0].__setitem__(3, "text\n"),
        lambda form: form[4][0].__setitem__(2, {"B C": 1}),
        lambda form: form[5].__setitem__(0, {"B": 0}),
    ],
)
def test_a_part_that_breaks_a_rule_is_refused(change: Callable[[Any], object]) -> None:
    form = msgspec.msgpack.decode(part_forms.encode(PART))
    assert part_forms.decode(msgspec.msgpack.encode(form)) == PART
    change(form)
    with pytest.raises(BadBatch):
        part_forms.decode(msgspec.msgpack.encode(form))
