"""The scenario: six stories of three nodes, told line by line and checked.

    python -m client.test_scenario                                      a cluster of its own
    python -m client.test_scenario A=http://127.0.0.1:8001 B=... C=...  one that runs already
    pytest client                                                       the same, as tests

What it is: a program for people who want to see causal order kept, and a test of everything at
once: client, nodes, replication, Redis.

What it assumes and guarantees: any cluster of three nodes or more, empty or not, in use or not.
Each step checks what it tells, uses keys of its own, and leaves the links healed and the nodes
running. A step that needs what the cluster does not offer says so and is skipped. Only one run at a
time: two would heal the links that the other has broken.

What it does not know: how a node works inside. It sees what any client can see.

Where the idea is from: the lost reply of Lamport's "Time, Clocks"; the lunch of every paper since.
"""

import argparse
import asyncio
import signal
import sys
import unittest
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from client.errors import BadInput, LightconeError, NotCaughtUp
from client.nodes import node_url
from client.scenario_cluster import Cluster, ClusterError, RunningCluster, own_cluster
from client.scenario_stage import Stage, covers, latest

#: Longer than a step ever takes: what is delayed arrives because the link is healed.
DELAY_MS = 600_000
CONVERSATIONS = 20
STATIONS = 12


async def test_an_answer_is_never_seen_without_its_question(stage: Stage) -> None:
    """A question and its answer"""
    a, b, c, *_ = stage.cluster.nodes
    question, answer = stage.key("question"), stage.key("answer")
    alice = stage.session("alice")

    asked = await stage.at(a, alice).put(question, "Lunch at noon?")
    await stage.tell(f"Alice asks at {a}: {asked.dot}")
    # Alice hands Bob the context, as a message between their programs would.
    bob = stage.session("bob", alice.context)
    read = await stage.at(b, bob).get(question)
    stage.check(read is not None and read.dot == asked.dot, "Bob reads Alice's question")
    await stage.tell(f"Bob, who was told of it, reads it at {b}")
    answered = await stage.at(b, bob).put(answer, "Yes!")
    await stage.tell(f"Bob answers at {b}: {answered.dot}, which depends on {asked.dot}")
    stage.check(covers(answered.clock, asked.dot), f"{b}'s clock covers the question")

    await stage.until(
        partial(_answer_and_question, stage, c, answer, question), f"{c} shows the answer"
    )
    stage.check(await stage.has(c, asked.dot, answered.dot), f"{c}'s clock covers both")
    await stage.tell(f"A stranger at {c} sees both, and at no moment only the answer")

    for number in range(CONVERSATIONS):
        question, answer = stage.key(f"question-{number}"), stage.key(f"answer-{number}")
        await stage.at(a, alice).put(question, "And now?")
        bob = stage.session("bob", alice.context)
        await stage.at(b, bob).get(question)
        await stage.at(b, bob).put(answer, "Still yes!")
        await stage.until(
            partial(_answer_and_question, stage, c, answer, question),
            f"{c} shows answer {number}",
        )
    await stage.tell(f"{CONVERSATIONS} more conversations, as fast as they go: the same")


async def _answer_and_question(stage: Stage, node: str, answer: str, question: str) -> bool:
    """Whether the node shows both. Raises AssertionError if it shows only the answer."""
    if await stage.text(node, answer) is None:
        return False
    # Read after the answer: so a question that came in between is no excuse.
    seen = await stage.text(node, question) is not None
    stage.check(seen, f"{node} shows the question whenever it shows the answer")
    return True


async def test_an_effect_that_overtakes_its_cause_waits_for_it(stage: Stage) -> None:
    """A slow link: the answer overtakes the question, and waits for it"""
    a, b, c, *_ = stage.cluster.nodes
    question, answer = stage.key("slow-question"), stage.key("slow-answer")
    async with stage.links() as links:
        await links.hold_back(a, c, delay_ms=DELAY_MS)
        await stage.tell(f"The link {a} to {c} is slow now, and nobody else relays to {c}")
        alice = stage.session("alice")
        asked = await stage.at(a, alice).put(question, "Dinner at seven?")
        await stage.tell(f"Alice asks at {a}: {asked.dot}")
        bob = stage.session("bob", alice.context)
        await stage.at(b, bob).get(question)
        answered = await stage.at(b, bob).put(answer, "Gladly!")
        await stage.tell(f"Bob reads it and answers at {b}: {answered.dot}")

        waits_for = await stage.until(
            lambda: stage.waiting_for(c, answered.dot), f"{answered.dot} waits at {c}"
        )
        # If others write at the same node, it may wait for a later write of theirs as well.
        stage.check(covers(latest(waits_for), asked.dot), f"{answered.dot} waits for {asked.dot}")
        stage.check(not await stage.has(c, answered.dot), f"{c}'s clock has no {answered.dot}")
        await stage.tell(f"{answered.dot} is in the buffer of {c}, waiting for {asked.dot}")
        shown = await stage.text(c, answer), await stage.text(c, question)
        stage.check(shown == (None, None), f"{c} shows neither")
        await stage.tell(f"A stranger at {c} sees neither of the two")
        try:
            await stage.at(c, bob).get(answer, patience_s=0)
        except NotCaughtUp as refused:
            missing = {entry.dot for entry in refused.missing}
        else:
            raise AssertionError(f"{c} refuses Bob, who has seen what it has not")
        stage.check({asked.dot, answered.dot} <= missing, f"the refusal names both, not {missing}")
        await stage.tell(
            f"Bob at {c}, in a hurry, is refused: missing {', '.join(sorted(missing))}"
        )

        await links.heal(a, c)
        await stage.until(
            partial(_answer_and_question, stage, c, answer, question), f"{c} shows the answer"
        )
        stage.check(await stage.has(c, asked.dot, answered.dot), f"{c}'s clock covers both")
        left = await stage.waiting_for(c, answered.dot)
        stage.check(left is None, f"{answered.dot} has left the buffer of {c}")
        await stage.tell(f"The link is well again: {c} shows both, the buffer let go of them")


async def test_a_roaming_client_reads_its_own_writes(stage: Stage) -> None:
    """A client that roams reads its own writes, and never an older value"""
    nodes = list(stage.cluster.nodes)
    key = stage.key("diary")
    carol = stage.session("carol")
    for day in range(STATIONS):
        home = nodes[day % len(nodes)]
        written = await stage.at(home, carol).put(key, f"day {day}")
        for node in nodes:
            read = await stage.at(node, carol).get(key)
            stage.check(
                read is not None and (read.text, read.dot) == (f"day {day}", written.dot),
                f"Carol reads day {day} at {node}",
            )
        if day < len(nodes):
            await stage.tell(f"Carol writes day {day} at {home} ({written.dot}), reads it at all")
    stage.check(len(await stage.at(nodes[0], carol).siblings(key)) == 1, "no day is in doubt")
    await stage.tell(f"{STATIONS} days, each written at another node: always the last, at all")


async def test_both_sides_of_a_split_keep_their_writes_and_then_agree(stage: Stage) -> None:
    """A split: both sides write one key, and agree when they meet again"""
    a, b, *_ = stage.cluster.nodes
    others = [node for node in stage.cluster.nodes if node != a]
    key = stage.key("colour")
    first = await stage.at(a).put(key, "grey")
    await stage.everywhere(first.dot)
    await stage.tell(f"The colour is grey everywhere: {first.dot}")
    async with stage.links() as links:
        await links.isolate(a)
        await stage.tell(f"{a} is cut off from {' and '.join(others)}")
        red = await stage.at(a).put(key, "red")
        blue = await stage.at(b).put(key, "blue")
        for node in others:
            await stage.until(partial(stage.has, node, blue.dot), f"{node} has blue")
        stage.check(await stage.text(a, key) == "red", f"{a} serves on its own")
        for node in others:
            stage.check(await stage.text(node, key) == "blue", f"{node} serves on its side")
        await stage.tell(f"Red at {a} ({red.dot}), blue at {b} ({blue.dot}): both sides serve")

    await stage.everywhere(red.dot, blue.dot)
    views = {
        node: [version.text for version in await stage.at(node).siblings(key)]
        for node in stage.cluster.nodes
    }
    siblings = views[a]
    stage.check(sorted(siblings) == ["blue", "red"], f"both writes were kept, not {views}")
    stage.check(all(view == siblings for view in views.values()), f"all agree, not {views}")
    for node in stage.cluster.nodes:
        stage.check(await stage.text(node, key) == siblings[0], f"{siblings[0]} wins at {node}")
    await stage.tell(
        f"Healed: {siblings[0]} wins on all nodes, and all keep {siblings[1]} beside it"
    )

    dora = stage.session("dora")
    await stage.at(b, dora).get(key)
    final = await stage.at(b, dora).put(key, "violet")
    await stage.everywhere(final.dot)
    for node in stage.cluster.nodes:
        left = [version.text for version in await stage.at(node).siblings(key)]
        stage.check(left == ["violet"], f"{node} holds violet alone, not {left}")
    await stage.tell(f"Dora read both and writes violet ({final.dot}): it alone is left, on all")


async def test_a_deleted_key_does_not_come_back(stage: Stage) -> None:
    """A key deleted while a node is away does not come back with it"""
    a, _, c, *_ = stage.cluster.nodes
    key, marker = stage.key("ghost"), stage.key("marker")
    there = await stage.at(a).put(key, "boo")
    await stage.everywhere(there.dot)
    await stage.tell(f"The ghost is everywhere: {there.dot}")
    async with stage.links() as links:
        await links.isolate(c)
        eve = stage.session("eve")
        await stage.at(a, eve).get(key)
        await stage.at(a, eve).delete(key)
        for node in stage.cluster.nodes.keys() - {c}:
            # With Eve's context, so that each answers from after the delete.
            stage.check(await stage.at(node, eve).get(key) is None, f"the ghost is gone at {node}")
        stage.check(await stage.text(c, key) == "boo", f"{c} is away, and still has it")
        await stage.tell(f"{c} is cut off. The ghost is deleted at {a}; only {c} still has it")

    # Whatever C brings back with it, this comes after.
    last = await stage.at(c).put(marker, "back again")
    await stage.everywhere(last.dot)
    for node in stage.cluster.nodes:
        stage.check(await stage.at(node, eve).get(key) is None, f"the ghost is gone at {node}")
    await stage.tell(f"{c} is back and has written ({last.dot}): the ghost is gone everywhere")


async def test_a_killed_node_recovers_clock_values_and_buffer(stage: Stage) -> None:
    """A node killed with kill -9 recovers its clock, its values and its buffer"""
    if reason := stage.cluster.why_no_crash():
        raise unittest.SkipTest(reason)
    a, b, c, *_ = stage.cluster.nodes
    kept, question, answer = (stage.key(name) for name in ("kept", "late-question", "late-answer"))
    own = await stage.at(c).put(kept, "safe")
    await stage.everywhere(own.dot)
    await stage.tell(f"{c} writes something to keep: {own.dot}")
    async with stage.links() as links:
        await links.hold_back(a, c, cut=True)
        alice = stage.session("alice")
        asked = await stage.at(a, alice).put(question, "Still there?")
        bob = stage.session("bob", alice.context)
        await stage.at(b, bob).get(question)
        answered = await stage.at(b, bob).put(answer, "Yes.")
        waits_for = await stage.until(
            lambda: stage.waiting_for(c, answered.dot), f"{answered.dot} waits at {c}"
        )
        before = await stage.clock(c)
        await stage.tell(f"{answered.dot} waits at {c} for {', '.join(waits_for)}, by a cut link")

        async with stage.killed(c):
            still = await stage.at(a).put(stage.key("meanwhile"), "life goes on")
            await stage.tell(f"{c} is killed, Redis and all. {a} still writes: {still.dot}")
        after = await stage.clock(c)
        stage.check(
            all(covers(after, f"{actor}:{sequence}") for actor, sequence in before.items()),
            f"{c}'s clock is at least {before}, not {after}",
        )
        stage.check(not covers(after, asked.dot), f"{c} has not got {asked.dot} by itself")
        stage.check(await stage.text(c, kept) == "safe", f"{c} has its value")
        again = await stage.waiting_for(c, answered.dot)
        stage.check(
            covers(latest(again or ()), asked.dot),
            f"{answered.dot} waits at {c} for {asked.dot} as before, not for {again}",
        )
        await stage.tell(f"{c} was started again: clock, value and buffer are as they were")

    await stage.until(
        partial(_answer_and_question, stage, c, answer, question), f"{c} shows the answer"
    )
    stage.check(await stage.waiting_for(c, answered.dot) is None, "the buffer let go of it")
    await stage.everywhere(asked.dot, answered.dot, still.dot)
    await stage.tell(f"The link is well again: {answered.dot} was applied from the buffer")


STEPS = (
    test_an_answer_is_never_seen_without_its_question,
    test_an_effect_that_overtakes_its_cause_waits_for_it,
    test_a_roaming_client_reads_its_own_writes,
    test_both_sides_of_a_split_keep_their_writes_and_then_agree,
    test_a_deleted_key_does_not_come_back,
    test_a_killed_node_recovers_clock_values_and_buffer,
)


def named_nodes(texts: Sequence[str]) -> dict[str, str]:
    """Node ids and addresses, from `A=http://...`. Raises BadInput."""
    nodes = {}
    for text in texts:
        name, equals, url = text.partition("=")
        if not (name and equals):
            raise BadInput(f"{text!r} names no node; give them as A=http://127.0.0.1:8001")
        if name in nodes:
            raise BadInput(f"{name} is given twice; every node has an id of its own")
        nodes[name] = node_url(url)
    return nodes


async def run(cluster: Cluster, console: Console, record: Path | None = None) -> bool:
    """All steps were told; the result is whether none failed."""
    task = asyncio.current_task()
    assert task is not None
    # So that links are healed and nodes are started again before the end.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    failed, skipped = 0, 0
    async with Stage(cluster, console, record) as stage:
        await stage.check_names()
        stage.say("   ".join(f"{node} {url}" for node, url in cluster.nodes.items()))
        for number, step in enumerate(STEPS, 1):
            stage.say(f"\n{number}. {step.__doc__}", "bold")
            try:
                await step(stage)
            except unittest.SkipTest as reason:
                skipped += 1
                stage.say(f"   Skipped: {reason}", "yellow")
            except (AssertionError, ClusterError, LightconeError) as error:
                failed += 1
                stage.say(f"   Failed: {error}", "red")
        passed = len(STEPS) - failed - skipped
        stage.say(f"\n{passed} of {len(STEPS)} steps passed, {skipped} skipped, {failed} failed")
    return failed == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The scenario was told; 0 when every step that was not skipped has passed, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m client.test_scenario",
        description="Show, and check, that three nodes keep causal order.",
    )
    parser.add_argument(
        "nodes",
        nargs="*",
        metavar="NODE=URL",
        help="a running cluster, at least three nodes by their NODE_ID; without: one of its own",
    )
    parser.add_argument(
        "--kill",
        default="",
        metavar="COMMAND",
        help="kills a node of the running cluster, such as 'docker kill -s KILL node-{node}'",
    )
    parser.add_argument(
        "--start", default="", metavar="COMMAND", help="starts that node again, without waiting"
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write what all clients did and saw to this file, a JSON line an operation",
    )
    options = parser.parse_args(arguments)
    console = Console()
    try:
        nodes = named_nodes(options.nodes)
        if nodes and len(nodes) < 3:
            raise BadInput("The scenario needs three nodes.")
        if not nodes and (options.kill or options.start):
            raise BadInput("--kill and --start are for a running cluster; name its nodes.")
    except BadInput as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if nodes:
            given = RunningCluster(nodes, options.kill, options.start)
            return 0 if asyncio.run(run(given, console, options.record)) else 1
        console.print("Starting three nodes, each with a Redis of its own ...")
        with own_cluster() as cluster:
            if asyncio.run(run(cluster, console, options.record)):
                return 0
            raise ClusterError("The scenario failed.")
    except (AssertionError, ClusterError, LightconeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("Stopped.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
