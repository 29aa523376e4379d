"""What is lost: a write that nobody has, of an actor that can make no other under its name.

Assumes of each member what it has said of itself, newly. Guarantees that a write is called lost
only if every member lacks it, applied or waiting, and said so after its actor had ended: each has
applied a write of a later incarnation of the actor's node, so what it said of the actor is no older
than the actor's end. Where a member is silent, nothing is lost.

Members say what they hold without a gap. Beyond a gap a member may hold more, and what is in the
gap may come to it from another member: so as long as one holds less of an actor than another,
nothing of the actor is lost. Once all hold equally much, nobody has the next one, and what anybody
holds beyond it can be applied nowhere.

Pure. Does not know how members are asked, nor what is done about a loss.

That a later incarnation was seen shows that an earlier one has ended, as in SWIM (Das, Gupta,
Motivala 2002); and that a dot is in nobody's clock is the mirror image of causal stability.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.incarnation import is_later, lane_of
from app.standing import Standing
from app.vector_clock import Dot, VectorClock, node_of


@dataclass(frozen=True, slots=True)
class Loss:
    """Of `actor` all writes after `after` are lost, among them those that were asked about, up to
    `through`."""

    actor: str
    after: int
    through: int

    def __str__(self) -> str:
        if self.through == self.after + 1:
            return f"{self.actor}:{self.through}"
        return f"{self.actor}:{self.after + 1} to {self.actor}:{self.through}"


def has_ended(actor: str, seen: VectorClock) -> bool:
    """Whether these writes show that another incarnation writes at the actor's node."""
    return any(is_later(other, than=actor) for other in seen)


def judge(dot: Dot, members: Mapping[str, Standing | None]) -> Loss | str:
    """The loss of the write, or why it is not lost, as far as is known.

    `members` are all there are; None stands for what one said that cannot be counted on.
    """
    if silent := [member for member, standing in members.items() if standing is None]:
        return f"{silent[0]} is not heard from, and may have it"
    standings = {member: standing for member, standing in members.items() if standing is not None}
    for member, standing in standings.items():
        if standing.held.covers(dot):
            return f"{member} has it"
    for member, standing in standings.items():
        if not has_ended(dot.actor, standing.clock):
            return (
                f"{member} has seen no write of {node_of(dot.actor)} under a later name than "
                f"{dot.actor}, so that more of {dot.actor} may come"
            )
    last = max((standing.held[dot.actor] for standing in standings.values()), default=0)
    for member, standing in standings.items():
        if standing.held[dot.actor] < last:
            return f"{member} lacks {dot.actor}:{last} yet, and may hold what follows it"
    return Loss(dot.actor, last, dot.sequence)


def is_home(actor: str, members: Mapping[str, Standing | None]) -> bool:
    """Whether the node that writes as `actor` has all that any member has, or will get, of its
    earlier names: each has seen a write of this one, and so has said how far it has those, and
    holds as much of them, so that none holds more beyond a gap."""
    here = members[node_of(actor)]
    for standing in members.values():
        if here is None or standing is None:
            return False
        if not (standing.clock[actor] or standing.clock[lane_of(actor)]):
            return False
        if any(is_later(actor, than=name) for name in standing.held.since(here.clock)):
            return False
    return True


def later_is_here(actor: str, node: str, members: Mapping[str, Standing | None]) -> bool:
    """Whether `node` has applied all that any member has, or will get, of the node of `actor` under
    later names: there may be what waited in a lane."""
    here = members[node]
    if here is None:
        return False
    for standing in members.values():
        if standing is None:
            continue
        for name, held in standing.held.since(here.clock).items():
            # What it writes itself by now it has, however far the others are.
            is_own = node_of(name) == node and not has_ended(name, here.clock)
            if is_later(name, than=actor) and (held > here.clock[name] or not is_own):
                return False
    return True


def losses(wanted: VectorClock, members: Mapping[str, Standing | None]) -> list[Loss]:
    """What is lost of `wanted`, by actor."""
    return [loss for dot in wanted.dots() if isinstance(loss := judge(dot, members), Loss)]


def without(context: VectorClock, lost: Iterable[Loss]) -> VectorClock:
    """The context, each actor cut back to the last write that some member has."""
    ends = {loss.actor: loss.after for loss in lost}
    return VectorClock((a, min(s, ends.get(a, s))) for a, s in context.items())
