"""What can happen in one simulation: the requests of clients, and what befalls a cluster.

What it is: a dataclass for each kind of `Step`, and the `Weather` of links.

What it assumes and guarantees: plain values only, so that a plan made of them can be cut down and
printed.

What it does not know: when any of it happens, how it is carried out, or what should come of it.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["put", "get", "siblings", "delete", "puts", "gets"]
"""The last two are transactions: the value is put on all keys, or all are read at one instant."""
TroubleKind = Literal["slow", "full", "readonly", "loading", "down", "flaky", "restart", "late"]
"""With `late`, what is published comes long after it was answered who asked for it."""
CrashWhen = Literal["before", "after", "late"]


@dataclass(frozen=True, slots=True)
class Weather:
    """How one direction of a link is: milliseconds, and probabilities of what befalls a message.

    `late` messages are held back and arrive long after the sender has given up on them.
    """

    delay_ms: float = 2.0
    jitter_ms: float = 1.0
    loss: float = 0.0
    repeat: float = 0.0
    late: float = 0.0
    cut: bool = False


FINE: Final = Weather()
TTLS_S: Final = (0.02, 0.2, 0.2, 1.0, 3.0)
LONG_S: Final = 10_000_000.0
"""Longer than a simulation, however much clocks are wrong in it."""


@dataclass(frozen=True, slots=True)
class Request:
    """A session asks a node for something, at `at` or when its request before has ended."""

    at: float
    session: str
    node: str
    kind: Kind
    key: str
    value: str = ""
    wait_s: float = 1.0
    others: tuple[str, ...] = ()
    """The further keys of a transaction."""
    ttl_s: float = 0.0
    """How long what it puts lives; 0 for ever."""
    defers: bool = False
    """Whether it prefers that its write is done later, where the node lacks what it has seen."""
    repeats: bool = False
    """Whether it is asked once more, whatever came of it, with the same Idempotency-Key."""

    @property
    def keys(self) -> tuple[str, ...]:
        """All that it asks about."""
        return (self.key, *self.others)


@dataclass(frozen=True, slots=True)
class LinkChange:
    """From now on what `source` sends to `target` has this weather."""

    at: float
    source: str
    target: str
    weather: Weather


@dataclass(frozen=True, slots=True)
class Pause:
    """A node stands still for a while, as with SIGSTOP."""

    at: float
    node: str
    for_s: float


@dataclass(frozen=True, slots=True)
class Crash:
    """A worker is killed at its n-th command to Redis from now on, and another starts later.

    `before` the command left, `after` its effect, or `late`: the command is on its way to Redis,
    and takes effect when its sender is dead.
    """

    at: float
    node: str
    worker: int
    commands: int
    when: CrashWhen
    for_s: float


@dataclass(frozen=True, slots=True)
class SenderCrash:
    """A worker is killed when the last part of a snapshot has arrived that it is the next to send,
    before it hears of that, and another starts later. Rare moments would not be hit otherwise."""

    at: float
    node: str
    for_s: float


@dataclass(frozen=True, slots=True)
class MergeCrash:
    """A worker is killed when its Redis has carried out the n-th step of a merge from now on,
    before it hears of that, and another starts later. The merge waits meanwhile, half done."""

    at: float
    node: str
    steps: int
    for_s: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """A node's Redis is unwell for a while."""

    at: float
    node: str
    kind: TroubleKind
    for_s: float


@dataclass(frozen=True, slots=True)
class PowerCut:
    """A node loses its power soon after its Redis has logged the n-th write from now on.

    Its workers and its Redis end, and what Redis had not synced may be lost. It comes back later.
    """

    at: float
    node: str
    writes: int
    for_s: float


@dataclass(frozen=True, slots=True)
class DiskLost:
    """A node's processes end, and it comes back without its data; or, if `copied_s` is not 0, with
    a copy of it that was made so long before, and that nobody has used for long.

    If it is `only_redis`, its workers live on, and find another Redis than they knew; and if that
    takes no time (`for_s` is 0), behind the connections that they have.
    """

    at: float
    node: str
    copied_s: float
    for_s: float
    only_redis: bool = False

    @property
    def copied_at_s(self) -> float | None:
        """When the copy is made that it comes back with; None if there is none."""
        return round(self.at - self.copied_s, 4) if self.copied_s else None


@dataclass(frozen=True, slots=True)
class Declaration:
    """An operator looks what is waited for at a node, and asks it to declare that lost."""

    at: float
    node: str


@dataclass(frozen=True, slots=True)
class ClockJump:
    """A node's wall clock jumps."""

    at: float
    node: str
    by_ms: int


@dataclass(frozen=True, slots=True)
class MemberChange:
    """A node is asked to add another one to the cluster, or to remove it."""

    at: float
    node: str
    verb: Literal["add", "remove"]
    member: str


WorkerCrash = Crash | SenderCrash | MergeCrash
Disturbance = (
    LinkChange
    | Pause
    | WorkerCrash
    | Trouble
    | PowerCut
    | DiskLost
    | Declaration
    | ClockJump
    | MemberChange
)
Step = Request | Disturbance


@dataclass(frozen=True, slots=True)
class Session:
    """One client. With `carries` it sends the causal context it has, on whichever node it asks."""

    name: str
    carries: bool
