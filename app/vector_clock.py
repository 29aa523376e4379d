"""Which writes have been seen, as a value.

A *dot* `A:7` names one write: the seventh of actor `A`. A *vector clock* `{A:7 B:3}` says that
`A:1..A:7` and `B:1..B:3` have been seen, and nothing else.

Assumes that the sequences of an actor start at 1 and have no gaps. Guarantees one form for one
value (zeros are never stored), a partial order, and that `merge` is its least upper bound.

Knows nothing of keys, values, nodes or time.

From Fidge and Mattern (1988). What only replicas count in is strictly a *version vector* (Parker
et al. 1983); the name is the field's habit.
"""

import re
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping
from functools import lru_cache
from typing import Final, NamedTuple, Self

SEQUENCE_MAX: Final = 2**53 - 1
"""The greatest sequence: Lua counts in doubles, and these are the integers they hold exactly."""

_ACTOR: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}(?:[~.+][A-Za-z0-9]*){0,3}")
_ACTOR_MAX: Final = 64
_SEQUENCE_DIGITS: Final = 16


def is_actor(text: str) -> bool:
    """Whether `text` can name an actor: a node's id (`A`), or one followed by a suffix (`A~x1`)."""
    return len(text) <= _ACTOR_MAX and _has_form_of_actor(text)


@lru_cache(maxsize=4096)  # for there are few, and they are asked about for each entry of a clock
def _has_form_of_actor(text: str) -> bool:
    return _ACTOR.fullmatch(text) is not None


@lru_cache(maxsize=4096)  # of one clock and the next, most entries are the same
def _parsed(dot: str) -> tuple[str, int]:
    """Actor and sequence of what prints so. Raises ValueError if it is no dot."""
    actor, _, digits = dot.rpartition(":")
    if (
        len(digits) <= _SEQUENCE_DIGITS
        and digits.isascii()
        and digits.isdigit()
        and digits[0] != "0"
        and (sequence := int(digits)) <= SEQUENCE_MAX
        and is_actor(actor)
    ):
        return actor, sequence
    raise ValueError(f"{dot!r} is not a dot such as A:7")


@lru_cache(maxsize=4096)  # as above
def node_of(actor: str) -> str:
    """The id of the node that writes, or wrote, as `actor`."""
    return re.split(r"[~.+]", actor, maxsplit=1)[0]


class Dot(NamedTuple):
    """The name of one write: `(actor, sequence)`. Prints as `A:7`."""

    actor: str
    sequence: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The dot that prints as `text`.

        Raises ValueError if there is none.
        """
        return cls(*_parsed(text))

    def __str__(self) -> str:
        return f"{self.actor}:{self.sequence}"

    def __repr__(self) -> str:
        return f"Dot({self})"


class VectorClock(Mapping[str, int]):
    """An immutable map from actor to the highest sequence seen, contiguous from 1.

    `clock[actor]` is 0 for an actor that was never seen; iteration is over the actors that were.
    `a <= b` is "b covers a", `a < b` is "a happened before b". Neither holds for clocks that are
    concurrent, so clocks can be compared but never sorted.
    """

    __slots__ = ("_entries",)

    _entries: dict[str, int]

    def __init__(self, entries: Mapping[str, int] | Iterable[tuple[str, int]] = ()) -> None:
        """The clock with these entries; zeros are left out.

        Raises ValueError for a negative sequence.
        """
        self._entries = {}
        for actor, sequence in dict(entries).items():
            if sequence < 0:
                raise ValueError("a sequence is never negative")
            if sequence:
                self._entries[actor] = sequence

    @classmethod
    def _of(cls, entries: dict[str, int]) -> Self:
        """The clock with these entries, all of them positive, which nobody changes any more."""
        clock = object.__new__(cls)
        clock._entries = entries
        return clock

    @classmethod
    def parse(cls, text: str) -> Self:
        """The clock that `entries_text` printed as `text`, for instance `A:7 B:3`.

        Raises ValueError for anything else, an actor named twice included.
        """
        parts = text.split()
        clock = cls._of(dict(map(_parsed, parts)))
        if len(clock) != len(parts):
            raise ValueError(f"{text!r} names an actor twice")
        return clock

    def __getitem__(self, actor: str) -> int:
        return self._entries.get(actor, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, actor: object) -> bool:
        return actor in self._entries

    # What Mapping makes of these takes three times as long.
    def items(self) -> ItemsView[str, int]:
        return self._entries.items()

    def keys(self) -> KeysView[str]:
        return self._entries.keys()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VectorClock):
            return NotImplemented
        return self._entries == other._entries

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def __le__(self, other: Self) -> bool:
        """Whether `other` covers every write that this clock covers."""
        theirs = other._entries
        for actor, sequence in self._entries.items():  # noqa: SIM110 (all() takes twice as long)
            if sequence > theirs.get(actor, 0):
                return False
        return True

    def __lt__(self, other: Self) -> bool:
        """Whether this clock happened before `other`."""
        return self != other and self <= other

    def __ge__(self, other: Self) -> bool:
        return other <= self

    def __gt__(self, other: Self) -> bool:
        return other < self

    def concurrent(self, other: Self) -> bool:
        """Whether neither clock covers the other: each has seen what the other has not."""
        return not self <= other and not other <= self

    def covers(self, dot: Dot) -> bool:
        """Whether the write named `dot` has been seen."""
        return dot.sequence <= self[dot.actor]

    def next_dot(self, actor: str) -> Dot:
        """The name of the write that `actor` makes next."""
        return Dot(actor, self[actor] + 1)

    def increment(self, actor: str) -> Self:
        """This clock after one more write of `actor`."""
        return self.with_dot(self.next_dot(actor))

    def with_dot(self, dot: Dot) -> Self:
        """This clock joined with one dot (and so with all earlier ones of its actor)."""
        actor, sequence = dot
        if sequence <= self._entries.get(actor, 0):
            return self
        clock = object.__new__(type(self))  # as `_of` does: this is called for every write
        clock._entries = {**self._entries, actor: sequence}
        return clock

    def merge(self, other: Self) -> Self:
        """The least clock that covers both: the element-wise maximum."""
        if not self._entries:
            return other
        if other <= self:
            return self
        entries = dict(self._entries)
        for actor, sequence in other._entries.items():
            if sequence > entries.get(actor, 0):
                entries[actor] = sequence
        return self._of(entries)

    def beyond(self, other: Self) -> Self:
        """The entries of this clock that `other` does not cover: what `other` lacks."""
        return self._of({a: s for a, s in self._entries.items() if s > other[a]})

    def since(self, before: Self) -> dict[str, int]:
        """What has to be said of this clock to who knows `before`: the entries that differ, 0 for
        one that is not here (Singhal and Kshemkalyani 1992)."""
        ours, theirs = self._entries, before._entries
        if ours == theirs:
            return {}
        said = {actor: s for actor, s in ours.items() if theirs.get(actor) != s}
        said.update((actor, 0) for actor in theirs if actor not in ours)
        return said

    def with_changes(self, said: Mapping[str, int]) -> Self:
        """The clock of which `said` was said to who knows this one."""
        if not said:
            return self
        return self._of({a: s for a, s in {**self._entries, **said}.items() if s})

    def _in_order(self) -> Iterable[tuple[str, int]]:
        """The entries by actor."""
        entries = self._entries.items()
        return entries if len(entries) < 2 else sorted(entries)

    def dots(self) -> list[Dot]:
        """The last dot of each actor, by actor."""
        return [Dot(*entry) for entry in self._in_order()]

    def entries_text(self) -> str:
        """The entries by actor, as stored and sent: `A:7 B:3`, empty for the empty clock."""
        return " ".join([f"{actor}:{s}" for actor, s in self._in_order()])

    def to_dict(self) -> dict[str, int]:
        """The entries by actor, for JSON."""
        return dict(self._in_order())

    def __str__(self) -> str:
        return f"{{{self.entries_text()}}}"

    def __repr__(self) -> str:
        return f"VectorClock({self})"


def text_with(text: str, dot: Dot) -> str:
    """What `entries_text` prints of the clock that it printed as `text`, with `dot` in it, which is
    the next of its actor."""
    if dot.sequence == 1:
        return VectorClock.parse(text).with_dot(dot).entries_text()
    actor, sequence = dot
    before, after = f" {actor}:{sequence - 1} ", f" {actor}:{sequence} "
    return f" {text} ".replace(before, after)[1:-1]


NOTHING: Final = VectorClock()
"""The clock of who has seen nothing."""
