"""Time passes for all nodes, once all is healed, so that it is decided what has expired.

What it is: `let_time_pass`.

What it assumes and guarantees: wall clocks were wrong, by hours, and what nodes call *now* may be
ahead of all of them; then a second takes hours to pass. So the wall clock that can be set goes
beyond all that expires within an hour of now, whoever calls it so; a write there tells everybody.
Where no clock can be set none was wrong, and time passes by itself. Then each node has removed what
is due. Or all that takes too long, and what is there is judged.

What it does not know: what expires at all.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence

from redis.exceptions import RedisError

from app.write import Put, expires_us
from tests.chaos.expiring import SHORT_MAX_S
from tests.chaos.logbook import Logbook
from tests.chaos.nodes import ChaosNodes
from tests.chaos.place import Place

PASS_MAX_S = 60.0
_MARGIN_S = 60.0
_POLL_S = 0.1


async def let_time_pass(nodes: ChaosNodes, places: Sequence[Place], book: Logbook) -> None:
    """By what each node calls now all has expired that was put for less than an hour, and is
    removed."""
    last_us = max(
        (
            expires_us(write.timestamp, one.ttl_us)
            for write in book.writes.values()
            for one in write.operations
            if isinstance(one, Put) and 0 < one.ttl_us <= SHORT_MAX_S * 1_000_000
        ),
        default=0,
    )
    if nodes.plan.odd_clock:
        nodes.set_clock(max(0.0, last_us / 1e6 - time.time()) + _MARGIN_S)

    async def time_has_passed() -> bool:
        for place in places:
            await place.says()  # a write: it has the time of its node
        return all([await place.timestamp() > last_us for place in places])

    async def nothing_is_due() -> bool:
        for place in places:
            now_us = await place.timestamp()
            async with place.redis() as redis:
                if await redis.zcount("expiring", "-inf", now_us):
                    return False
        return True

    with contextlib.suppress(TimeoutError, RedisError, OSError):
        async with asyncio.timeout(PASS_MAX_S):
            while not await time_has_passed():
                await asyncio.sleep(_POLL_S)
            while not await nothing_is_due():
                await asyncio.sleep(_POLL_S)
