"""What there can be: values of all shapes that the rules of the store allow, for Hypothesis."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock
from app.write import (
    KEY_MAX_BYTES,
    SYSTEM,
    TIMESTAMP_MAX,
    TTL_MAX_S,
    Delete,
    Operation,
    Put,
    Write,
    key_problem,
    microseconds,
)

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

keys = st.text(min_size=1, max_size=KEY_MAX_BYTES // 4).filter(lambda key: not key_problem(key))
content_types = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1)
ttls_us = st.just(0) | st.integers(1, microseconds(TTL_MAX_S))
puts = st.builds(Put, keys, st.binary(), content_types, st.just(0)) | st.builds(
    Put, keys.filter(lambda key: not key.startswith(SYSTEM)), st.binary(), content_types, ttls_us
)
operations_lists: st.SearchStrategy[list[Operation]] = st.lists(
    puts | st.builds(Delete, keys),
    min_size=1,
    max_size=4,
    unique_by=lambda operation: operation.key,
)
actors = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}(~[A-Za-z0-9]{1,9})?", fullmatch=True)
sequences = st.integers(1, SEQUENCE_MAX)
clocks = st.dictionaries(actors, sequences, max_size=4).map(VectorClock)
timestamps = st.integers(1, TIMESTAMP_MAX)


@st.composite
def writes(draw: st.DrawFn) -> Write:
    dot = Dot(draw(actors), draw(sequences))
    dependencies = VectorClock({**draw(clocks), dot.actor: dot.sequence - 1})
    return Write(dot, dependencies, draw(timestamps), tuple(draw(operations_lists)))
