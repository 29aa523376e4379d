"""Where a member stands: what it has applied, and what it holds.

What a member says of itself is true when it says so. Later it has that and more, as long as it
loses nothing.

Pure. Does not know how members are asked, nor what follows from what they say.
"""

from dataclasses import dataclass
from typing import Final

from app.vector_clock import NOTHING, VectorClock


@dataclass(frozen=True, slots=True)
class Standing:
    """What a member has applied, and what it holds of each actor without a gap, applied or not."""

    clock: VectorClock
    received: VectorClock

    @property
    def held(self) -> VectorClock:
        """Both: what it said of the one may be older than what it said of the other."""
        return self.received.merge(self.clock)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a member said of itself, and when: microseconds since 1970 by the clock of who heard it,
    0 for never."""

    standing: Standing
    at_us: int

    def age_us(self, now_us: int) -> int:
        """How long ago that was. What seems to be heard in the future was heard before the clock
        was set back, nobody knows when: it counts as if it were heard at the beginning of time."""
        return now_us - self.at_us if self.at_us <= now_us else now_us


UNHEARD: Final = Heard(Standing(NOTHING, NOTHING), 0)
"""Of a member from which nothing was heard."""
