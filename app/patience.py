"""How long an answer of a peer is waited for: longer, where a batch cannot be made smaller.

A batch for which a narrow link is too slow is made smaller (`under_way.py`). One write cannot be,
nor a part of a snapshot: it would be given up and sent again for ever. So each time that there was
no answer to such a batch in time, it has twice the time, until one is answered within the ordinary
time again.

Assumes that a peer from which nothing came is asked whether it is there at all before it is sent
such a batch again: so a peer that is away is not waited for longer and longer. Guarantees that
whatever takes no longer than `LONGEST_S` comes through.

Does not know how anything is sent. From the timeouts of TCP, which are doubled, too, and go back
with the first answer to what was sent once (Karn, Partridge 1987).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from app.wire import Batch

LONGEST_S: Final = 600.0
"""No answer is waited for longer than that, unless the ordinary time is longer itself."""
SILENCE_S: Final = LONGEST_S + 60.0
"""From whom nothing has come for so long, nothing is on its way: what comes slowly is silence, too,
until it is here."""


class Patience:
    """How long one node waits for the answers of its peers."""

    def __init__(self, ordinary_s: float, now: Callable[[], float]) -> None:
        self._ordinary_s = ordinary_s
        self._now = now
        self._longer_s: dict[str, float] = {}
        """By peer, for what cannot be made smaller; of those that were too slow for it."""

    @contextmanager
    def waiting(self, batch: Batch) -> Iterator[float]:
        """The answer to this batch is waited for, for so many seconds. If none comes by then, a
        TimeoutError is raised within, and says so outside."""
        # A part without a name is a question, and small.
        cannot_be_smaller = bool(batch.part and batch.part.name) or len(batch.writes) == 1
        peer, began, patience_s = batch.receiver, self._now(), self._ordinary_s
        if cannot_be_smaller:
            patience_s = self._longer_s.get(peer, patience_s)
        try:
            yield patience_s
        except TimeoutError as error:
            if cannot_be_smaller:
                self._longer_s[peer] = max(self._ordinary_s, min(2 * patience_s, LONGEST_S))
            raise TimeoutError(str(error) or f"no answer within {patience_s:g} s") from None
        if cannot_be_smaller and self._now() - began < self._ordinary_s:
            self._longer_s.pop(peer, None)
