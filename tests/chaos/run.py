"""One run from its begin to its verdicts.

What it is: `run`, which starts the nodes of a plan, lets clients loose and conducts the strikes,
waits until all is well, gathers the evidence and judges it; and `Result`, what comes of it.

What it assumes and guarantees: everything is under the directory that it is given: data and logs of
the nodes, and `history.jsonl` for `python -m tests.checker`. When it ends, no node runs. What goes
wrong in the cluster is in the verdicts; only what makes a run impossible is raised.

What it does not know: how it is shown.
"""

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from redis.exceptions import RedisError

from app.vector_clock import VectorClock
from client import Lightcone, LightconeError
from tests.chaos.conduct import Conductor, Firing
from tests.chaos.ends import ends_of, within
from tests.chaos.evidence import Evidence, Verdict
from tests.chaos.final import SETTLE_MAX_S, TRIM_MAX_S, verdicts
from tests.chaos.gather import Telling, as_history, held_by, read_all
from tests.chaos.load import Load, Tally
from tests.chaos.logbook import Logbook, LogReader
from tests.chaos.nemeses import nemesis_for
from tests.chaos.nodes import ChaosNodes
from tests.chaos.passing import let_time_pass
from tests.chaos.place import Place, probe_key
from tests.chaos.plan import Plan, Strike
from tests.chaos.timeline import Timeline
from tests.chaos.watched import all_told, as_ended, watchers_of
from tests.contents import joined, redis_contents

#: Clients go on for so long after the last healing, so that the end shows all nodes at work.
_CALM_S = 3.0
_POLL_S = 0.1
#: What a node logs when it has merged a snapshot.
_MERGED = "snapshot merged"
#: What it logs when it takes another name, since what it has may be an old copy.
_IN_DOUBT = re.compile(r"new incarnation +actor=(\S+) .*may be an old copy")
#: What it logs only when it meets what nobody thought of, or doubts a guarantee.
_COMPLAINTS = ("Traceback (most recent call last)", "[critical", "a guarantee is in doubt")


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    plan: Plan
    verdicts: Sequence[Verdict]
    firings: Sequence[Firing]
    timeline: Timeline
    tally: Tally
    took_s: float
    #: The version of each node's Redis.
    redis: Mapping[str, str]
    history: Path
    #: Acknowledged writes that only one disk had, which was lost.
    lost_writes: int = 0
    #: How many were merged, by all nodes.
    snapshots: int = 0

    @property
    def is_good(self) -> bool:
        """Whether everything is as it must be."""
        return all(verdict.is_good for verdict in self.verdicts)


class Watcher(Protocol):
    """Whoever looks at a run while it goes on."""

    def tell(self, line: str) -> None:
        """Something has happened."""

    def show(self, tally: Tally, under_way: Sequence[Strike]) -> None:
        """So far it has come to this; called twice a second."""


async def run(plan: Plan, directory: Path, watcher: Watcher) -> Result:
    """The plan was carried out and judged. Raises StartupError, OSError."""
    began = time.monotonic()
    timeline = Timeline(plan.nodes)
    requests, finals = directory / "requests.jsonl", directory / "final-reads.jsonl"
    logbook = Logbook()
    async with ChaosNodes(directory / "nodes", plan) as nodes:
        watcher.tell(f"ready: {', '.join(f'{n} {url}' for n, url in nodes.urls.items())}")
        async with Lightcone(list(nodes.urls.values()), record=requests) as kv:
            load = Load(plan, kv, nodes.urls, nodes.losses)
            places = {node: Place(nodes, kv, node, logbook) for node in nodes.names}
            conductor = Conductor(
                lambda strike: nemesis_for(strike, nodes.network, places), watcher.tell
            )
            watchers = watchers_of(kv, nodes.contexts, nodes.losses)
            async with asyncio.TaskGroup() as group:
                looking = [
                    group.create_task(timeline.take(kv, nodes.urls, load.tally)),
                    group.create_task(_show(watcher, load.tally, conductor)),
                    *(group.create_task(one.run()) for one in watchers),
                    *(
                        group.create_task(LogReader(logbook, node, nodes.socket(node)).keep())
                        for node in plan.nodes
                    ),
                ]
                await _under_load(load, conductor, plan)
                watcher.tell("everything is healed; waiting for the nodes to agree")
                settled_s = await _settled_s(kv, nodes.urls)
                await let_time_pass(nodes, list(places.values()), logbook)
                await _settled_s(kv, nodes.urls)
                await _until_logs_are_short(nodes)
                clock = VectorClock((await kv.status())["clock"])
                await all_told(watchers, clock, SETTLE_MAX_S)
                for task in looking:
                    task.cancel()
        keys = [*plan.keys(), *map(probe_key, plan.nodes)]
        watcher.tell(f"reading {len(keys)} keys at every node, and what is in Redis")
        await read_all(nodes.urls, [*keys, *plan.expiring_keys()], finals)
        there = {node: held for node in plan.nodes if (held := await held_by(nodes, node))}
        log_files = {node: nodes.data_dir / f"{node}.log" for node in plan.nodes}
        names = {url: node for node, url in nodes.urls.items()}
    watcher.tell("checking")
    for node, held in there.items():
        logbook.note(node, held.logs)
    ends = ends_of(held.versions for held in there.values())
    clocks = {node: within(held.clock, ends) for node, held in there.items()}
    telling = Telling(logbook, nodes.losses, ends, joined(clocks.values()))
    timeline.lasting = telling.lasting()
    records = await asyncio.to_thread(telling.records, requests, finals, names)
    history = directory / "history.jsonl"
    operations, expiring = await asyncio.to_thread(as_history, history, records)
    evidence = Evidence(
        plan=plan,
        history=operations,
        expiring=expiring,
        keys=keys,
        firings=conductor.firings,
        losses=nodes.losses.taken,
        done_as=telling.done_as,
        ends=ends,
        settled_s=settled_s,
        clocks=clocks,
        timestamps={node: held.timestamp for node, held in there.items()},
        versions={node: held.versions for node, held in there.items()},
        listed={node: held.listed for node, held in there.items()},
        logs={node: held.logs for node, held in there.items()},
        logbook=logbook,
        pending={node: held.pending for node, held in there.items()},
        stretches=[
            as_ended(stretch, ends, timeline.lasting)
            for one in watchers
            for stretch in one.stretches
        ],
        complaints=await asyncio.to_thread(_told, log_files, _COMPLAINTS),
        in_doubt=[
            found[1]
            for line in await asyncio.to_thread(_told, log_files, ("new incarnation",))
            if (found := _IN_DOUBT.search(line))
        ],
        snapshots=Counter(
            line.partition(":")[0] for line in await asyncio.to_thread(_told, log_files, (_MERGED,))
        ),
    )
    judged = await asyncio.to_thread(verdicts, evidence)
    return Result(
        plan=plan,
        verdicts=judged,
        firings=conductor.firings,
        timeline=timeline,
        tally=load.tally,
        took_s=time.monotonic() - began,
        redis={node: held.redis for node, held in there.items()},
        history=history,
        lost_writes=len(evidence.lost_writes()),
        snapshots=sum(evidence.snapshots.values()),
    )


async def _under_load(load: Load, conductor: Conductor, plan: Plan) -> None:
    """All strikes have been carried out while clients asked, and the clients have ended."""
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        await conductor.run(plan.tracks)
        await asyncio.sleep(_CALM_S)
        load.stop()


async def _show(watcher: Watcher, tally: Tally, conductor: Conductor) -> None:
    while True:
        watcher.show(tally, conductor.under_way())
        await asyncio.sleep(0.5)


async def _settled_s(kv: Lightcone, urls: Mapping[str, str]) -> float | None:
    """How long it took until all nodes had applied the same and nothing waited."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() - began < SETTLE_MAX_S:
        try:
            told = [await kv.status(url) for url in urls.values()]
        except LightconeError:
            told = []
        waiting = sum(s["pending"]["total"] + s["deferred"]["total"] for s in told)
        if told and not waiting and all(s["clock"] == told[0]["clock"] for s in told):
            return loop.time() - began
        await asyncio.sleep(_POLL_S)
    return None


async def _until_logs_are_short(nodes: ChaosNodes) -> None:
    """All nodes have trimmed their logs; or they had the time, and what is left is judged."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    longest = nodes.plan.log_entries_max
    while loop.time() - began < TRIM_MAX_S:
        with contextlib.suppress(RedisError, OSError):
            logs = [await redis_contents(nodes.socket(node), "log:*") for node in nodes.names]
            if all(len(log) <= longest for held in logs for log in held.values()):
                return
        await asyncio.sleep(_POLL_S)


def _told(log_files: Mapping[str, Path], what: Sequence[str]) -> list[str]:
    """The lines of the nodes' own logs that tell any of this."""
    return [
        f"{node}: {line.strip()}"
        for node, path in log_files.items()
        for line in path.read_text(errors="replace").splitlines()
        if any(text in line for text in what)
    ]
