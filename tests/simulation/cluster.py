"""One simulation, from its plan to its end.

What it is: `simulate(plan)` gives a `Result`: what happened, and what was wrong with it.

What it assumes and guarantees: a plan has one outcome, whenever and wherever it is run. The nodes
are the real ones: `app.node.worker` makes them, with a world of ours.

What it does not know: why the plan is as it is.

Where the idea is from: FoundationDB's simulation: run the real code, own everything around it.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog
from pydantic import SecretStr

from app import progress, snapshot_receiving
from app.config import Config
from app.errors import LightconeError, RedisUnavailable
from app.lost import Loss
from app.node import World, worker
from app.peers import Signer
from app.vector_clock import Dot, VectorClock, node_of
from tests.simulation import loop, storage
from tests.simulation.network import LIFE, ConnectionReset, Network
from tests.simulation.oracle import Answered, FinalReads, Oracle, Violation
from tests.simulation.plan import Plan
from tests.simulation.record import Event, Record
from tests.simulation.steps import (
    FINE,
    TTLS_S,
    ClockJump,
    Crash,
    Declaration,
    DiskLost,
    Disturbance,
    LinkChange,
    MemberChange,
    MergeCrash,
    Pause,
    PowerCut,
    Request,
    SenderCrash,
    Session,
    Trouble,
    Weather,
    WorkerCrash,
)
from tests.simulation.storage import Life, Storage
from tests.simulation.watcher import Watcher

EPOCH_US: Final = 1_700_000_000_000_000
SETTLES_WITHIN_S: Final = 40.0
"""Virtual seconds, after everything is healed. Long, since some settings make it slow."""
CLIENT_PATIENCE_S: Final = 6.0
_STARTED_AFTER_S: Final = 0.1
_EXPIRY_MS: Final = 300
_LAST_KEY: Final = "last"
_SECRET: Final = "the secret of this cluster"
_TOLD_TO_WAIT: Final = {
    f"urn:lightcone:{name}" for name in ("syncing", "node-removed", "foreign-context")
}
"""Refusals that say that it depends on others when the node serves again: on the end of a merge,
on being made a member again, on hearing of the members that its clients have heard of."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a plan."""

    plan: Plan
    violation: str | None
    guarantee: str
    events: list[Event]
    trace: str
    virtual_s: float
    writes: int
    seen: Counter[str]
    """How often what happened: to show that a simulation was about something."""


def simulate(plan: Plan, *, clients_only: bool = False) -> Result:
    """The plan has been carried out. With `clients_only`, the oracle looks at no Redis."""
    with _quiet() as alarms, _ordered_waiters(), _merges_in_small_steps():
        simulation = _Simulation(plan, alarms, clients_only)
        try:
            return loop.run(simulation.run())
        except (loop.Deadlock, loop.Livelock) as error:
            return simulation.result(Violation("G6", str(error)))


class _Simulation:
    def __init__(self, plan: Plan, alarms: list[str], clients_only: bool) -> None:
        self._clients_only = clients_only
        self._plan = plan
        self._alarms = alarms
        self._loop: Any = None

    async def run(self) -> Result:
        self._loop = asyncio.get_running_loop()
        plan = self._plan
        self._record = record = Record(self._loop.time)
        # What nobody but a node lacks that is no member may be trimmed.
        changes = any(isinstance(step, MemberChange) for step in plan.steps)
        self._oracle = Oracle(
            plan.nodes,
            record,
            0 if plan.joins or changes else plan.settings.get("log_max_entries", 10**9),
            lambda node: self._latest_us[node],
            clients_only=self._clients_only,
        )
        self._network = Network(self._rng, Signer(_SECRET if plan.signs else None))
        self._network.note = lambda text: record.note("wire", "", text)
        self._wrong: asyncio.Future[None] = self._loop.create_future()
        self._skew_ms = dict(plan.skew_ms)
        self._latest_us = dict.fromkeys(plan.nodes, 0)
        """The latest that each wall clock has ever shown."""
        self._jumps: list[tuple[str, int]] = []
        """Of each jump of a clock: the node, and what it showed then."""
        self._is_troubled = any(
            isinstance(s, WorkerCrash | Trouble | Pause | PowerCut | DiskLost) for s in plan.steps
        )
        self._storages = {node: self._storage(node) for node in plan.nodes}
        self._lives: dict[tuple[str, int], Life] = {}
        self._tokens: dict[str, set[str]] = {session.name: set() for session in plan.sessions}
        self._healed = False
        self._loop.set_task_factory(self._task_of_its_life(self._loop.get_task_factory()))
        violation: Violation | None = None
        with storage.time_is(lambda: EPOCH_US / 1e6 + self._loop.time()):
            try:
                await self._carry_out()
            except Violation as error:
                violation = error
                record.note("wrong", "", f"!!!  {error}")
        for life in self._lives.values():
            life.die("the end")
        return self.result(violation)

    def result(self, violation: Violation | None) -> Result:
        """What has come of it so far."""
        record = self._record
        return Result(
            self._plan,
            None if violation is None else str(violation),
            "" if violation is None else violation.guarantee,
            record.story(),
            record.trace(),
            self._loop.time(),
            len(self._oracle.writes),
            record.counts(),
        )

    def _rng(self, name: str) -> random.Random:
        """Chance of its own for each thing, so that taking one away leaves the others' alone."""
        return random.Random(f"{self._plan.seed} {name}")

    def _raise(self, violation: Violation) -> None:
        """What is found wrong where nobody could catch it ends the simulation."""
        if not self._wrong.done():
            self._wrong.set_exception(violation)

    # --- nodes -----------------------------------------------------------------------------------

    def _storage(self, node: str) -> Storage:
        peers = [peer for peer in self._plan.nodes if peer != node]
        made = Storage(node, peers, self._rng(f"redis {node}"))

        def after_command(name: str) -> None:
            if name in ("evalsha", "eval", "xtrim"):
                try:
                    self._oracle.redis_changed(node, made.data, is_full=made.trouble == "full")
                except Violation as violation:
                    self._raise(violation)

        def on_power_cut(cut: PowerCut) -> None:
            for life in [life for life in self._lives.values() if life.node == node]:
                life.back_after_s = cut.for_s
                life.die("power")
            try:
                lost = self._oracle.went_back(node, made.data)
            except Violation as violation:
                self._raise(violation)
            else:
                self._record.note("trouble", node, f"power {node} cut, {lost or 'nothing'} lost")

        made.after_command = after_command
        made.on_power_cut = on_power_cut
        made.note = lambda text: self._record.note("trouble", node, f"     {node}'s Redis {text}")
        return made

    def _task_of_its_life(self, make: Any) -> Callable[..., Any]:
        """Tasks that a worker starts belong to it, and end with it."""

        def factory(
            running: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
        ) -> Any:
            task = make(running, work, **options)
            context = options.get("context")
            life = LIFE.get() if context is None else context.get(LIFE)
            if life is not None:
                life.tasks[task] = None
                task.add_done_callback(lambda done: life.tasks.pop(done, None))
            return task

        return factory

    async def _start(self, node: str, index: int, number: int) -> None:
        """A worker of the node runs, and another one whenever it dies."""
        while True:
            life = Life(node, index)
            died = asyncio.Event()

            def on_death(why: str, died: asyncio.Event = died, life: Life = life) -> None:
                self._network.stop(life)
                if why != "the end":
                    text = f"kill {node} worker {index} ({why})"
                    self._record.note("trouble", node, text)
                died.set()

            life.on_death = on_death
            self._lives[node, index] = life
            LIFE.set(life)
            running = self._loop.create_task(self._serve(life, number))
            LIFE.set(None)
            await died.wait()
            if life.died_merging:
                self._loop.create_task(self._passer_by(node, f"passer-by-{node}-{index}-{number}"))
            await asyncio.wait([running])
            await asyncio.sleep(0.05 if self._healed else life.back_after_s)
            number += 1
            self._record.note("wire", node, f"start {node} worker {index}")

    async def _serve(self, life: Life, number: int) -> None:
        node = life.node
        world = World(
            connect=storage.connect(self._storages[node], life),
            exchange=self._network.exchange(life, self._config(node).peer_timeout_ms / 1000),
            now_us=lambda: self._now_us(node),
            rng=self._rng(f"worker {node} {life.worker} {number}"),
        )
        try:
            async with worker(self._config(node), world) as interface:
                self._network.serve(life, interface)
                await self._loop.create_future()
        except* RedisUnavailable as errors:
            life.die(f"it gave up: {errors.exceptions[0]}")
        except* LightconeError as errors:
            life.die("it gave up")
            self._raise(Violation("G6", f"{node} ended: {errors.exceptions[0]}"))

    def _now_us(self, node: str) -> int:
        now_us = int(EPOCH_US + self._loop.time() * 1e6) + self._skew_ms[node] * 1000
        self._latest_us[node] = max(self._latest_us[node], now_us)
        return now_us

    def _config(self, node: str) -> Config:
        settings: dict[str, Any] = dict(self._plan.settings)
        return Config(
            node_id=node,
            peers={peer: _url(peer) for peer in self._plan.peers(node)},
            redis_url="redis://127.0.0.1:1",
            cluster_secret=SecretStr(_SECRET) if self._plan.signs else None,
            expiry_ms=_EXPIRY_MS,
            **settings,
        )

    # --- the course of it ------------------------------------------------------------------------

    async def _carry_out(self) -> None:
        plan = self._plan
        for pair, weather in plan.weather.items():
            self._network.set_weather(*pair, weather)
        for pair in plan.severed:
            self._record.note("trouble", "", f"sever {pair[0]} => {pair[1]}")
            self._network.set_weather(*pair, Weather(cut=True))
        for pair, bytes_per_s in plan.widths.items():
            note = f"narrow {pair[0]} => {pair[1]}: {bytes_per_s:g} bytes a second"
            self._record.note("trouble", "", note)
            self._network.set_width(*pair, bytes_per_s)
        for node in plan.nodes:
            for index in range(plan.settings.get("workers", 1)):
                self._loop.create_task(self._start(node, index, 0))
        clients = [
            self._loop.create_task(self._client(session))
            for session in plan.sessions
            if any(isinstance(s, Request) and s.session == session.name for s in plan.steps)
        ]
        self._watcher = Watcher(
            self._network,
            self._oracle,
            record=self._record,
            nodes=plan.nodes,
            rng=self._rng("watch"),
        )
        if plan.watches:
            self._loop.create_task(self._watch())
        troubles = self._loop.create_task(self._troubles())
        await self._unless_wrong(asyncio.gather(*clients, troubles))
        self._heal()
        await self._unless_wrong(self._settle())

    async def _unless_wrong(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        await asyncio.wait([task, self._wrong], return_when=asyncio.FIRST_COMPLETED)
        if self._wrong.done():
            task.cancel()
            self._wrong.result()
        await task
        self._check_alarms()

    def _check_alarms(self) -> None:
        if self._alarms:
            raise Violation("alarm", self._alarms[0])

    async def _troubles(self) -> None:
        plan = self._plan
        for step in plan.steps:
            if isinstance(step, DiskLost) and (copied_at_s := step.copied_at_s) is not None:
                self._storages[step.node].copy_at(copied_at_s)
        for step in plan.steps:
            if not isinstance(step, Request):
                await self._until(min(step.at, plan.heal_at))
                self._loop.create_task(self._trouble(step))
        await self._until(plan.heal_at)

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self._loop.time()))

    async def _trouble(self, step: Disturbance) -> None:
        note = self._record.note
        match step:
            case LinkChange(_, source, target, weather):
                if (source, target) not in self._plan.severed and not self._healed:
                    note("trouble", "", f"{_weather_text(weather)} {source} => {target}")
                    self._network.set_weather(source, target, weather)
            case MemberChange(_, node, verb, member):
                note("trouble", node, f"{verb} member {member} at {node}")
                status = await self._change_member(node, verb, member)
                note("trouble", node, f"{verb} member {member} at {node} -> {status}")
            case ClockJump(_, node, by_ms):
                note("trouble", node, f"clock {node} {by_ms:+} ms")
                self._skew_ms[node] += by_ms
                self._jumps.append((node, self._now_us(node)))
            case Crash(_, node, index):
                if life := self._lives.get((node, index)):
                    life.plan_crash(step)
            case SenderCrash(_, node):
                for life in self._lives.values():
                    if life.node == node:
                        life.sender_crash = step
            case MergeCrash(_, node):
                for life in self._lives.values():
                    if life.node == node:
                        life.plan_merge_crash(step)
            case DiskLost():
                if not self._healed:
                    self._lose_disk(step)
            case Declaration(_, node):
                await self._declare_what_is_waited_for(node)
            case PowerCut(_, node):
                if not self._healed:
                    self._storages[node].plan_power_cut(step)
            case Pause(_, node, for_s):
                note("trouble", node, f"pause {node}")
                lives = [life for life in self._lives.values() if life.node == node]
                for life in lives:
                    life.running.clear()
                await asyncio.sleep(for_s)
                note("trouble", node, f"resume {node}")
                for life in lives:
                    life.running.set()
            case Trouble(_, node, kind, for_s):
                redis = self._storages[node]
                note("trouble", node, f"redis {node} {kind}")
                redis.begin(kind)
                await asyncio.sleep(for_s)
                if redis.trouble == kind:
                    redis.end()
                    note("trouble", node, f"redis {node} well")

    def _lose_disk(self, step: DiskLost) -> None:
        node, redis = step.node, self._storages[step.node]
        for life in [life for life in self._lives.values() if life.node == node]:
            if not step.only_redis:
                life.back_after_s = step.for_s
                life.die("its disk is lost")
        redis.lose_disk(step.copied_at_s, step.for_s)
        gone = self._oracle.lost_disk(node, redis.data)
        how = "lost" if step.copied_at_s is None else "old copy"
        how = f"under its workers {how}" if step.only_redis else how
        self._record.note("trouble", node, f"disk {node} {how}, {gone or 'nothing'} gone")

    def _heal(self) -> None:
        self._healed = True
        self._record.note("trouble", "", "heal all")
        for pair in self._plan.weather:
            if pair not in self._plan.severed:
                self._network.set_weather(*pair, FINE)
        for redis in self._storages.values():
            redis.end()
        for life in self._lives.values():
            life.crash = life.sender_crash = life.merge_crash = None
            life.running.set()

    async def _change_member(self, node: str, verb: str, member: str) -> int:
        """The status that the node answers; 0 if it does not."""
        if verb == "add":
            asked = "POST", "/members", json.dumps({"id": member, "url": _url(member)}).encode()
        else:
            asked = "DELETE", f"/members/{member}", b""
        method, path, body = asked
        rng = self._rng(f"{verb} {member} at {node}")
        try:
            async with asyncio.timeout(CLIENT_PATIENCE_S):
                reply = await self._network.ask(node, rng, method, path, {}, body)
        except (ConnectionReset, TimeoutError):
            return 0
        status: int = reply.status
        return status

    async def _make_all_members(self) -> None:
        first, *others = self._plan.nodes
        for member in others:
            while await self._change_member(first, "add", member) not in (200, 201):
                if self._loop.time() > self._plan.heal_at + SETTLES_WITHIN_S:
                    raise Violation("G6", f"{first} does not add {member} though all is healed")
                await asyncio.sleep(0.2)

    async def _settle(self) -> None:
        """All nodes are equal, within a stated time."""
        oracle, plan = self._oracle, self._plan
        changes_members = bool(plan.joins) or any(isinstance(s, MemberChange) for s in plan.steps)
        if changes_members:
            await self._make_all_members()
        for node in plan.nodes:
            await self._last_write(node)
        give_up_at = self._loop.time() + SETTLES_WITHIN_S
        quiet = await self._become_equal(give_up_at, changes_members)
        if quiet:
            for session in plan.sessions:
                if session.carries:
                    await self._last_read(session)
        if quiet and plan.watches:
            await self._watcher.is_told(oracle.clock_of(plan.nodes[0]), SETTLES_WITHIN_S)
        if plan.has_expiry:
            await self._until_expired()
        pending, reads = await self._last_looks()
        # Nodes write by themselves, too: what their settings name, once members have changed.
        while not self._are_equal() and self._loop.time() < give_up_at:
            await self._become_equal(give_up_at, changes_members)
            pending, reads = await self._last_looks()
        oracle.finish(pending, reads)

    def _are_equal(self) -> bool:
        clocks = {str(self._oracle.clock_of(node)) for node in self._plan.nodes}
        return len(clocks) == 1 and not self._waits()

    def _waits(self) -> bool:
        """Whether something is pending or deferred anywhere."""
        return any(
            key.startswith((b"pending:", b"deferred:"))
            for redis in self._storages.values()
            for key in redis.data
        )

    async def _become_equal(self, give_up_at: float, changes_members: bool) -> bool:
        """Whether all nodes have the same, and nothing waits, before it is time to give up."""
        quiet = 0
        # Two looks in a row: what a worker sent before it died may still come in.
        while quiet < 2 and self._loop.time() < give_up_at:
            await asyncio.sleep(0.2)
            if self._waits():
                await self._declare_what_is_lost()
            quiet = quiet + 1 if self._are_equal() else 0
            if changes_members:
                await self._bring_back_who_is_removed()
        return quiet == 2

    async def _last_looks(self) -> tuple[dict[str, int], dict[str, FinalReads]]:
        """How much waits at each node, and what it answers of each key."""
        oracle, plan = self._oracle, self._plan
        pending: dict[str, int] = {}
        reads: dict[str, FinalReads] = {}
        for node in plan.nodes:
            before = oracle.clock_of(node)
            status = await self._look(node, "/status")
            pending[node] = status["pending"]["total"] + status["deferred"]["total"]
            told = VectorClock(status["clock"])
            if not before <= told <= oracle.clock_of(node):
                raise Violation("G3", f"/status of {node} says {told}")
            asked = [s for s in plan.steps if isinstance(s, Request)]
            keys = sorted({_LAST_KEY}.union(*(request.keys for request in asked)))
            reads[node] = {key: await self._final_read(node, key) for key in keys}
        return pending, reads

    async def _until_expired(self) -> None:
        """All clocks agree, and what expires here at all has expired, and its memory is free.

        The clocks are set to a time when it has: to wait for that would take half of the work."""
        ahead_ms = max(self._latest_us.values()) // 1000 - int(self._loop.time() * 1000)
        ahead_ms += int(2000 * max(TTLS_S)) + 1
        self._skew_ms = dict.fromkeys(self._skew_ms, ahead_ms - EPOCH_US // 1000)
        self._record.note("trouble", "", "all clocks agree")
        await asyncio.sleep(4 * _EXPIRY_MS / 1000)
        for node, redis in self._storages.items():
            self._oracle.check_memory(node, redis.data)

    async def _bring_back_who_is_removed(self) -> None:
        """A removal that was under way when its member was added may be the later one, by the clock
        of whoever made it."""
        for node in self._plan.nodes:
            with suppress(ConnectionReset):
                reply = await self._network.ask(node, self._rng(node), "GET", "/readyz", {}, b"")
                if reply.status == 410:
                    await self._change_member(self._plan.nodes[0], "add", node)

    async def _declare_what_is_lost(self) -> None:
        """What waits for a write that a disk has taken waits for an operator."""
        for node in self._plan.nodes:
            waiting = await self._look(node, "/pending")
            wanted = [
                dot
                for first in waiting["deferred"][:1]
                for dot in map(Dot.parse, first["waiting_for"])
                if dot.actor != Dot.parse(first["dot"]).actor  # the one before it in its lane
            ]
            wanted += [
                dot
                for one in waiting["writes"]
                for dot in map(Dot.parse, one["waiting_for"])
                if self._oracle.is_gone(dot)
            ]
            for dot in dict.fromkeys(wanted):
                # Where it is waited for; and where alone it may be known whether it is lost.
                if not await self._declare_lost(node, dot):
                    await self._declare_lost(node_of(dot.actor), dot)

    async def _declare_what_is_waited_for(self, node: str) -> None:
        """The node is asked to declare lost whatever something waits for there, be it lost or not:
        it is the node that has to know."""
        with suppress(ConnectionReset):
            reply = await self._network.ask(node, self._rng("pending"), "GET", "/pending", {}, b"")
            if reply.status == 200:
                waiting = json.loads(reply.body)
                entries = [*waiting["writes"], *waiting["deferred"]]
                for dot in dict.fromkeys(dot for one in entries for dot in one["waiting_for"]):
                    await self._declare_lost(node, Dot.parse(dot))

    async def _declare_lost(self, node: str, dot: Dot) -> bool:
        """Whether the node has declared it lost."""
        body, rng = json.dumps({"dots": [str(dot)]}).encode(), self._rng(f"lost {dot}")
        try:
            reply = await self._network.ask(node, rng, "POST", "/lost", {}, body)
        except ConnectionReset:
            return False
        if reply.status != 200:
            return False
        told = json.loads(reply.body)["lost"]
        self._record.note("trouble", node, f"declared lost at {node}: {told}")
        losses = [Loss(one["actor"], one["after"], one["after"] + 1) for one in told]
        self._oracle.check_losses(f"an operator at {node}", losses)
        return True

    async def _last_write(self, node: str) -> None:
        """One more write at each node, so that a link that is stuck for ever is found out."""
        rng, session = self._rng(f"last {node}"), Session(f"last-{node}", carries=False)
        for number in range(50):
            value = f"{session.name}.{number}"
            request = Request(0, session.name, node, "put", _LAST_KEY, value)
            answer = await self._request(session, request, set(), rng)
            if answer.outcome == "ok":
                return
            if answer.problem == "urn:lightcone:node-removed":
                # Whoever was asked to make it a member may not have heard that it was removed.
                await self._change_member(self._plan.nodes[0], "add", node)
            await asyncio.sleep(0.1)
        raise Violation("G6", f"{node} takes no write though all is healed")

    async def _last_read(self, session: Session) -> None:
        """Every session can go on everywhere, if need be without what is lost."""
        rng, tokens = self._rng(f"last {session.name}"), self._tokens[session.name]
        for node in self._plan.nodes:
            request = Request(0, session.name, node, "get", _LAST_KEY)
            for _ in range(100):
                if (await self._request(session, request, tokens, rng)).outcome == "ok":
                    break
                await asyncio.sleep(0.2)
            else:
                raise Violation("G7", f"{session.name} cannot go on at {node} though all is healed")

    async def _look(self, node: str, path: str) -> Any:
        while True:
            try:
                reply = await self._network.ask(node, self._rng(path), "GET", path, {}, b"")
            except ConnectionReset:
                reply = None
            if reply is not None and reply.status in (200, 404):
                return json.loads(reply.body)
            if self._loop.time() > self._plan.heal_at + 2 * SETTLES_WITHIN_S:
                raise Violation("G6", f"{node} does not answer {path} though all is healed")
            await asyncio.sleep(0.2)

    async def _final_read(self, node: str, key: str) -> list[tuple[Dot, str]]:
        """Each version's dot and value, winner first."""
        shown = await self._look(node, f"/kv/{key}?siblings=true")
        return [(Dot.parse(one["dot"]), one["text"]) for one in shown.get("siblings", ())]

    # --- clients ---------------------------------------------------------------------------------

    async def _watch(self) -> None:
        try:
            await self._watcher.run()
        except Violation as violation:
            self._raise(violation)

    async def _client(self, session: Session) -> None:
        rng = self._rng(f"client {session.name}")
        tokens = self._tokens[session.name]
        for step in self._plan.steps:
            if isinstance(step, Request) and step.session == session.name:
                await self._until(step.at)
                try:
                    await self._request(session, step, tokens, rng)
                    if step.repeats:
                        await self._request(session, step, tokens, rng)
                except Violation as violation:
                    self._raise(violation)
                    return

    async def _passer_by(self, node: str, name: str) -> None:
        """Somebody looks at all keys there, one after the other, for most of a second: what should
        not be seen for long is seen by few otherwise."""
        rng, session = (
            self._rng(f"passer-by at {node}"),
            Session(f"passer-by-{node}", carries=False),
        )
        keys = sorted({step.key for step in self._plan.steps if isinstance(step, Request)})
        try:
            for key in keys * 5:
                request = Request(0, name, node, "siblings", key, wait_s=0)
                await self._request(session, request, set(), rng)
                await asyncio.sleep(0.05)
        except Violation as violation:
            self._raise(violation)

    async def _request(
        self, session: Session, request: Request, tokens: set[str], rng: random.Random
    ) -> Answered:
        node = request.node
        method, path, headers, body = _asked(request)
        sent = sorted(tokens) if session.carries else []
        if sent:
            headers["Causal-Context"] = ",".join(sent)
        await asyncio.sleep(rng.uniform(0.0001, 0.002))
        wall_us, jumps = self._now_us(node), len(self._jumps)
        before = self._oracle.before(node, wall_us)
        try:
            async with asyncio.timeout(CLIENT_PATIENCE_S + request.wait_s):
                reply = await self._network.ask(node, rng, method, path, headers, body)
        except (ConnectionReset, TimeoutError) as error:
            outcome = "not_applied" if str(error) == "connection refused" else "unknown"
            answer = Answered(request, session.carries, 0, outcome)
        else:
            answer = _understood(request, session.carries, reply)
            if token := reply.headers.get("Causal-Context"):
                tokens.difference_update(sent)
                tokens.add(token)
        dots = " ".join(map(str, answer.dots)) or "nothing"
        told = dots if answer.outcome == "ok" else f"{answer.status} {answer.outcome}"
        told = f"accepted {dots}" if answer.outcome == "accepted" else told
        value = f' "{request.value}"' if request.value else ""
        keys = " ".join(request.keys)
        text = f"{session.name}: {request.kind} {node} {keys}{value} -> {told}"
        short = f"{request.kind} {keys} {dots if told == dots else answer.status}"
        self._record.note("client", node, text, "", short)
        self._check_alarms()
        if self._must_serve(answer):
            raise Violation("G6", f"refused, though all is well at {node}: {text}")
        since = [shown_us for name, shown_us in self._jumps[jumps:] if name == node]
        if since:
            before = replace(before, now_us=min(before.now_us, *since))
        self._oracle.answered(answer, before)
        return answer

    def _must_serve(self, answer: Answered) -> bool:
        """Whether a node whose workers and Redis are well all the time has refused, and not for
        lack of something that the client has seen elsewhere, or for a merge that will end."""
        return (
            answer.problem not in _TOLD_TO_WAIT
            and (answer.outcome == "unknown" or (answer.outcome != "ok" and not answer.carries))
            and not (self._loop.time() < _STARTED_AFTER_S or self._is_troubled)
        )


def _asked(request: Request) -> tuple[str, str, dict[str, str], bytes]:
    """The method, the path, the headers, and the body by which it is asked for."""
    wait = f"wait={request.wait_s:g}"
    headers = {"Prefer": "respond-async"} if request.defers else {}
    if request.repeats:
        # A session may ask for two things at the same time of the plan.
        about = request.kind, *request.keys, request.value
        headers["Idempotency-Key"] = " ".join((request.session, f"{request.at}", *about))
    match request.kind:
        case "put":
            headers["Content-Type"] = "text/plain"
            wait += f"&ttl={request.ttl_s}" if request.ttl_s else ""
            return "PUT", f"/kv/{request.key}?{wait}", headers, request.value.encode()
        case "delete":
            return "DELETE", f"/kv/{request.key}?{wait}", headers, b""
        case "get":
            return "GET", f"/kv/{request.key}?{wait}", {}, b""
        case "siblings":
            return "GET", f"/kv/{request.key}?{wait}&siblings=true", {}, b""
        case "puts":
            ttl: dict[str, Any] = {"ttl": request.ttl_s} if request.ttl_s else {}
            ops = [{"put": key, "value": request.value, **ttl} for key in request.keys]
        case _:
            ops = [{"get": key} for key in request.keys]
    return "POST", f"/txn?{wait}", headers, json.dumps({"ops": ops}).encode()


def _understood(request: Request, carries: bool, reply: Any) -> Answered:
    status = reply.status
    if status == 202:
        dots = (Dot.parse(json.loads(reply.body)["dot"]),)
        return Answered(request, carries, status, "accepted", dots, context=_context(reply))
    if status == 200 and request.kind in ("puts", "gets"):
        return _understood_transaction(request, carries, reply)
    if status in (200, 204) and request.kind in ("put", "delete"):
        return Answered(request, carries, status, "ok", (Dot.parse(reply.headers["Dot"]),))
    if status == 200:
        etag = tuple(Dot.parse(dot) for dot in reply.headers["ETag"].strip('"').split(","))
        winner = Dot.parse(reply.headers["Dot"])
        values = {winner: reply.body}
        if request.kind == "siblings":
            shown = json.loads(reply.body)["siblings"]
            values = {Dot.parse(one["dot"]): one["text"].encode() for one in shown}
            if set(values) != set(etag) or winner != Dot.parse(shown[0]["dot"]):
                raise Violation("G5", f"the siblings of {request.key} are not those of its ETag")
        return Answered(request, carries, status, "ok", etag, winner, values, _context(reply))
    if status == 404:
        return Answered(request, carries, status, "ok", context=_context(reply))
    problem = json.loads(reply.body)
    if problem["type"] == "urn:lightcone:lost":
        lost = tuple(Loss(**loss) for loss in problem["lost"])
        return Answered(
            request,
            carries,
            status,
            problem["outcome"],
            context=_context(reply),
            problem=problem["type"],
            lost=lost,
        )
    if status != 503 and problem["type"] not in _TOLD_TO_WAIT:
        raise Violation("G10", f"{request.kind} {request.key}: {problem}")
    return Answered(request, carries, status, problem["outcome"], problem=problem["type"])


def _understood_transaction(request: Request, carries: bool, reply: Any) -> Answered:
    told, context = json.loads(reply.body), _context(reply)
    if request.kind == "puts":
        return Answered(request, carries, 200, "ok", (Dot.parse(told["dot"]),), context=context)
    reads = []
    for result in told["results"]:
        values = {Dot.parse(v["dot"]): v["text"].encode() for v in result["siblings"]}
        about = replace(request, kind="siblings", key=result["get"], others=())
        dots = tuple(values)
        winner = dots[0] if dots else None
        reads.append(Answered(about, carries, 200, "ok", dots, winner, values, context))
    shown = tuple(dot for one in reads for dot in one.dots)
    cut = VectorClock(told["clock"])
    return Answered(request, carries, 200, "ok", shown, context=context, reads=reads, cut=cut)


def _context(reply: Any) -> VectorClock:
    """What the answer's token says: oracles may look into what clients must not."""
    token: str = reply.headers["Causal-Context"]
    return VectorClock.parse(token.partition(";s=")[0].removeprefix("lc1").replace(";", " "))


def _url(node: str) -> str:
    return f"http://{node}.test"


def _weather_text(weather: Weather) -> str:
    if weather.cut:
        return "cut"
    return "heal" if weather == FINE else f"weather {weather.delay_ms:g} ms loss {weather.loss:g}"


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Nothing is logged; what a node calls critical is in the list."""
    alarms: list[str] = []
    before = structlog.get_config()

    def collect(_logger: Any, _method: str, event: Any) -> Any:
        alarms.append(" ".join(f"{key}={value}" for key, value in sorted(event.items())))
        raise structlog.DropEvent

    structlog.configure(
        processors=[collect],
        wrapper_class=structlog.make_filtering_bound_logger("critical"),
        cache_logger_on_first_use=False,
    )
    try:
        yield alarms
    finally:
        structlog.configure(**before)


@contextmanager
def _merges_in_small_steps() -> Iterator[None]:
    """There are few keys here: a merge takes them one by one, so that it can be interrupted."""
    before = snapshot_receiving.KEYS_AT_ONCE
    snapshot_receiving.KEYS_AT_ONCE = 1
    try:
        yield
    finally:
        snapshot_receiving.KEYS_AT_ONCE = before


class _NumberedWaiter(progress._Waiter):
    """Sets of waiters would be walked by memory address: they hash by number instead."""

    made = 0

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "_NumberedWaiter":
        waiter = super().__new__(cls)
        cls.made += 1
        waiter.number = cls.made
        return waiter

    def __hash__(self) -> int:
        return self.number

    number: int


@contextmanager
def _ordered_waiters() -> Iterator[None]:
    before = progress._Waiter
    _NumberedWaiter.made = 0
    progress._Waiter = _NumberedWaiter  # type: ignore[misc]
    try:
        yield
    finally:
        progress._Waiter = before  # type: ignore[misc]
