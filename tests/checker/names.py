"""Which write is which: by its value, and by its dot.

What it is: `Names`, the writes that the reads of a history show, and `Finding`, one violation.

What it assumes and guarantees: no value is put twice on one key, else BadHistory. What is wrong
with names is found here: a value from nowhere, a refused write that is shown, a dot that names two
writes, two siblings of one actor.

What it does not know: any order.

Where the idea is from: ThinAirRead as in Bouajjani et al. (2017); the rest is what dots are for.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.checker.graph import unique
from tests.checker.history import BadHistory, Dot, Operation, Read, Seen


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation of `pattern`: operation number `at` shows it.

    `other` is the write in question: what should not have been shown, or should have been.
    """

    pattern: str
    at: int
    key: str = ""
    other: int | None = None
    note: str = ""
    cycle: tuple[int, ...] = ()


class Names:
    """The writes of a history by name; operations are numbered as they come."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self.findings: list[Finding] = []
        #: The dot of each write, where the history tells it somewhere.
        self.dot_of: dict[int, Dot] = {}
        self.by_dot: dict[Dot, int] = {}
        self._by_value: dict[tuple[str, str], int] = {}
        self._refused: dict[tuple[str, str], int] = {}
        self._names_writes()
        self._learn_dots()
        #: Keys with a put of which neither is known: whether it happened, nor its dot.
        self._nameless = {
            write.key
            for index, operation in enumerate(operations)
            if operation.outcome == "unknown" and index not in self.dot_of
            for write in operation.writes
        }
        self._seen: set[int] = set()
        #: Per operation and read: the writes shown, None for one that cannot be told.
        self.shown: list[list[list[int | None]]] = [
            [self._resolve(index, read) for read in operation.reads]
            if operation.outcome == "ok"
            else []
            for index, operation in enumerate(operations)
        ]

    def happened(self, index: int) -> bool:
        """Whether an operation took effect: it says so, or what it wrote was seen."""
        return (
            self._operations[index].outcome == "ok" or index in self._seen or index in self.dot_of
        )

    def shown_by(self, index: int) -> list[int]:
        """The writes that the reads of an operation show."""
        return unique(
            writer for shown in self.shown[index] for writer in shown if writer is not None
        )

    def _names_writes(self) -> None:
        for index, operation in enumerate(self._operations):
            refused = operation.outcome == "not_applied"
            if operation.dot and not refused:
                self._learn_dot(index, operation.dot, index)
            for write in operation.writes:
                if write.value is None:
                    continue
                name = (write.key, write.value)
                if refused:
                    self._refused.setdefault(name, index)
                elif (other := self._by_value.setdefault(name, index)) != index:
                    raise BadHistory(
                        f"Lines {self._operations[other].line} and {operation.line} both put "
                        f"{write.value!r} on {write.key!r}, so a read does not tell which it saw. "
                        "Give every put a value of its own. Nothing was checked."
                    )

    def _learn_dots(self) -> None:
        for index, operation in enumerate(self._operations):
            for read in operation.reads if operation.outcome == "ok" else ():
                for seen in read.seen:
                    if seen.dot and seen.value is not None:
                        writer = self._by_value.get((read.key, seen.value))
                        if writer is not None:
                            self._learn_dot(writer, seen.dot, index)

    def _learn_dot(self, writer: int, dot: Dot, told_by: int) -> None:
        known = self.dot_of.setdefault(writer, dot)
        if known != dot:
            note = f"one write is called {known}, and {dot} here"
            self.findings.append(Finding("OneWriteTwoDots", told_by, other=writer, note=note))
            return
        namesake = self.by_dot.setdefault(dot, writer)
        if namesake != writer:
            note = f"{dot} names two writes"
            self.findings.append(Finding("DotNamesTwoWrites", told_by, other=namesake, note=note))
            # Told once; without a name the second write does no more harm.
            del self.dot_of[writer]

    def _resolve(self, index: int, read: Read) -> list[int | None]:
        writers = [self._writer(index, read, seen) for seen in read.seen]
        known = [writer for writer in writers if writer is not None]
        self._seen.update(known)
        if len(known) != len(set(known)):
            self._find("SiblingTwice", index, read, "one write is shown twice")
        actors = Counter(self.dot_of[w].actor for w in set(known) if w in self.dot_of)
        for actor, count in actors.items():
            if count > 1:
                note = f"{count} siblings of actor {actor}, whose writes supersede one another"
                self._find("SiblingsOfOneActor", index, read, note)
        return writers

    def _writer(self, index: int, read: Read, seen: Seen) -> int | None:
        if seen.value is not None:
            name = (read.key, seen.value)
            writer = self._by_value.get(name)
            if writer is None and name in self._refused:
                writer = self._refused[name]
                note = "the write was refused as not applied, and yet it is shown"
                self.findings.append(Finding("RefusedWriteSeen", index, read.key, writer, note))
            elif writer is None:
                self._find("ThinAirRead", index, read, f"nobody put {seen.value!r} on {read.key!r}")
            return writer
        assert seen.dot is not None, "a version is seen by its value or by its dot"
        writer = self.by_dot.get(seen.dot)
        if writer is None:
            if read.key not in self._nameless:
                self._find("ThinAirRead", index, read, f"nobody wrote {seen.dot} on {read.key!r}")
            return None
        writes = self._operations[writer].writes
        if not any(write.key == read.key and write.value is not None for write in writes):
            note = f"{seen.dot} did not put anything on {read.key!r}"
            self.findings.append(Finding("ThinAirRead", index, read.key, writer, note))
            return None
        return writer

    def _find(self, pattern: str, index: int, read: Read, note: str) -> None:
        self.findings.append(Finding(pattern, index, read.key, note=note))
