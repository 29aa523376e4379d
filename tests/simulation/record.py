"""What happened in a simulation, as it is told: events in time, each at one node or between two.

What it is: `Record` and its `Event`s. `trace` is all of it as text, for comparing two runs byte by
byte; `story` is what a person wants to read.

What it assumes and guarantees: events are noted in the order in which they happened.

What it does not know: what should have happened.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

EventKind = Literal[
    "client",
    "watch",
    "own",
    "applied",
    "merged",
    "renamed",
    "expired",
    "waits",
    "trouble",
    "wire",
    "wrong",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at a node (or at none: "").

    `dot` names the write it is about, `short` says it in a word or two for a diagram.
    """

    at: float
    node: str
    kind: EventKind
    text: str
    dot: str = ""
    short: str = ""

    def __str__(self) -> str:
        return f"{self.at:9.4f}  {self.text}"


@dataclass
class Record:
    """The events so far."""

    now: Callable[[], float]
    events: list[Event] = field(default_factory=list)

    def note(self, kind: EventKind, node: str, text: str, dot: str = "", short: str = "") -> None:
        """This happened now."""
        self.events.append(Event(self.now(), node, kind, text, dot, short))

    def trace(self) -> str:
        """Everything, to the last digit."""
        return "".join(f"{e.at!r} {e.kind} {e.node} {e.text}\n" for e in self.events)

    def counts(self) -> Counter[str]:
        """How often each kind of thing happened; troubles by their first words."""
        return Counter(_what(event) for event in self.events)

    def story(self) -> list[Event]:
        """What a person wants to know: all but the single messages."""
        return [event for event in self.events if event.kind != "wire"]


def _what(event: Event) -> str:
    words = event.text.split()
    if words[0] == "disk":
        return f"disk {words[2].rstrip(',')}"
    if words[0] == "power":
        return "power" if words[3] == "nothing" else "power lost"
    if event.kind == "trouble":
        return " ".join(words[::2][:2]) if words[0] == "redis" else words[0]
    if event.kind == "watch":
        return f"watch {words[3]} {words[4]}"
    if event.kind == "client" and "accepted" in words:
        return "accepted"
    if event.kind == "client":
        return "refused" if words[-1] in ("unknown", "not_applied") else words[1]
    return words[-1] if event.kind == "wire" and words[-1] in ("lost", "repeated") else event.kind
