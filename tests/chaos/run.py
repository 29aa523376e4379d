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
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.context import Contexts
from app.vector_clock import VectorClock
from client import Lightcone, LightconeError
from tests.chaos.conduct import Conductor, Firing
from tests.chaos.evidence import Evidence, Verdict
from tests.chaos.final import SETTLE_MAX_S, TRIM_MAX_S, verdicts
from tests.chaos.load import Load, Tally
from tests.chaos.logbook import Logbook, LogReader
from tests.chaos.nemeses import nemesis_for
from tests.chaos.nodes import ChaosNodes
from tests.chaos.place import Place, probe_key
from tests.chaos.plan import Plan, Strike
from tests.chaos.timeline import Timeline
from tests.chaos.watched import all_told, watchers_of
from tests.checker.history import Dot, Operation, read_history
from tests.contents import Contents, joined, redis_contents

#: Clients go on for so long after the last healing, so that the end shows all nodes at work.
_CALM_S = 3.0
_READS_AT_ONCE = 16
_POLL_S = 0.1
#: What a node logs when it has merged a snapshot.
_MERGED = "snapshot merged"
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
    contexts = Contexts(plan.settings.get("CLUSTER_SECRET"), sys.maxsize)
    async with ChaosNodes(directory / "nodes", plan) as nodes:
        watcher.tell(f"ready: {', '.join(f'{n} {url}' for n, url in nodes.urls.items())}")
        async with Lightcone(list(nodes.urls.values()), record=requests) as kv:
            load = Load(plan, kv, nodes.urls, nodes.losses)
            conductor = _conductor(nodes, kv, watcher)
            watchers = watchers_of(kv, contexts, nodes.losses)
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
                await _until_logs_are_short(nodes)
                clock = VectorClock((await kv.status())["clock"])
                await all_told(watchers, clock, SETTLE_MAX_S)
                for task in looking:
                    task.cancel()
        keys = [*plan.keys(), *map(probe_key, plan.nodes)]
        watcher.tell(f"reading {len(keys)} keys at every node, and what is in Redis")
        await _read_all(nodes.urls, keys, finals)
        held = {node: await _held(nodes, node) for node in plan.nodes}
        log_files = {node: nodes.data_dir / f"{node}.log" for node in plan.nodes}
        names = {url: node for node, url in nodes.urls.items()}
    watcher.tell("checking")
    for node, contents in held.items():
        if contents is not None:
            logbook.note(node, contents.logs)
    history = directory / "history.jsonl"
    there = {node: contents for node, contents in held.items() if contents is not None}
    end = joined(contents.clock for contents in there.values())
    timeline.lasting = {loss.actor: end.get(loss.actor, 0) for loss in nodes.losses.taken}

    def lost_in(printed: str) -> Dot | None:
        context = contexts.parse(printed).to_dict()
        return nodes.losses.newest_in(context, end)

    records = _records(requests, finals, names, lost_in if nodes.losses.taken else None)
    operations = await asyncio.to_thread(_history, history, records)
    evidence = Evidence(
        plan=plan,
        history=operations,
        keys=keys,
        firings=conductor.firings,
        losses=nodes.losses.taken,
        settled_s=settled_s,
        clocks={node: contents.clock for node, contents in there.items()},
        versions={node: contents.versions for node, contents in there.items()},
        logs={node: contents.logs for node, contents in there.items()},
        logbook=logbook,
        pending={node: contents.pending for node, contents in there.items()},
        stretches=[stretch for one in watchers for stretch in one.stretches],
        complaints=await asyncio.to_thread(_told, log_files, _COMPLAINTS),
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
        redis={node: contents.redis for node, contents in there.items()},
        history=history,
        lost_writes=len(evidence.lost_writes()),
        snapshots=sum(evidence.snapshots.values()),
    )


def _conductor(nodes: ChaosNodes, kv: Lightcone, watcher: Watcher) -> Conductor:
    places = {node: Place(nodes, kv, node) for node in nodes.names}
    return Conductor(lambda strike: nemesis_for(strike, nodes.network, places), watcher.tell)


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
        waiting = sum(status["pending"]["total"] for status in told)
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


async def _read_all(urls: Mapping[str, str], keys: Sequence[str], record: Path) -> None:
    """Every node was asked for every key, as a stranger would."""
    limit = asyncio.Semaphore(_READS_AT_ONCE)
    async with Lightcone(list(urls.values()), record=record) as kv:
        sessions = {node: kv.session(name=f"final-{node}").at(url) for node, url in urls.items()}

        async def read(node: str, key: str) -> None:
            # That a key could not be read is in the record.
            async with limit:
                with contextlib.suppress(LightconeError):
                    await sessions[node].siblings(key)

        await asyncio.gather(*itertools.starmap(read, itertools.product(urls, keys)))


@dataclass(frozen=True, slots=True)
class _Held:
    clock: dict[str, int]
    versions: Contents
    logs: Contents
    pending: list[str]
    redis: str


async def _held(nodes: ChaosNodes, node: str) -> _Held | None:
    """What the node's Redis holds; None if it does not answer."""
    socket = nodes.socket(node)
    try:
        clock = await redis_contents(socket, "clock")
        async with Redis(unix_socket_path=str(socket)) as redis:
            version = str((await redis.info("server"))["redis_version"])
        return _Held(
            {actor.decode(): int(s) for actor, s in clock.get("clock", {}).items()},
            await redis_contents(socket, "kv:*"),
            await redis_contents(socket, "log:*"),
            sorted(await redis_contents(socket, "pending:*")),
            version,
        )
    except (RedisError, OSError):
        return None


def _history(path: Path, records: Iterable[Mapping[str, Any]]) -> list[Operation]:
    """The records are in the file; and as operations."""
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(record) + "\n" for record in records)
    with path.open(encoding="utf-8") as lines:
        return read_history(lines)


def _records(
    requests: Path,
    finals: Path,
    names: Mapping[str, str],
    lost_in: Callable[[str], Dot | None] | None,
) -> Iterator[dict[str, Any]]:
    """All that clients did and saw; marked are the final reads, and who has seen what is lost."""
    for record in _lines(requests):
        record["node"] = names[record["node"]]
        if lost_in is not None and (lost := lost_in(record["context_out"])):
            record["lost"] = str(lost)
        yield record
    for record in _lines(finals):
        yield record | {"node": names[record["node"]], "final": True}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _told(log_files: Mapping[str, Path], what: Sequence[str]) -> list[str]:
    """The lines of the nodes' own logs that tell any of this."""
    return [
        f"{node}: {line.strip()}"
        for node, path in log_files.items()
        for line in path.read_text(errors="replace").splitlines()
        if any(text in line for text in what)
    ]
