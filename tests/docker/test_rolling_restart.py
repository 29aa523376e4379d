"""An upgrade as docs/operations.md tells it: one node after the other, while clients write."""

import asyncio
import itertools

import pytest

from client import Lightcone, LightconeError, OutcomeUnknown, Session, Written
from tests.docker.compose import NUMBERS, ComposeCluster
from tests.processes import until_equal_clocks

pytestmark = pytest.mark.timeout(600)

CLIENTS = 6
PAUSE_S = 0.03
READS_AT_ONCE = 16
#: Of one write whose outcome is unknown, which is safe to repeat, as it writes the same again.
TRIES = 5


async def test_all_nodes_are_replaced_under_load_and_no_request_fails(
    cluster: ComposeCluster, kv: Lightcone
) -> None:
    failed: list[str] = []
    written: dict[str, str] = {}
    served: set[str] = set()
    stop = asyncio.Event()

    async def client(name: int) -> None:
        # Each has another nearest node. The client library goes on to the next by itself.
        urls = list(cluster.urls.values())
        nearest = [*urls[name % 3 :], *urls[: name % 3]]
        session = kv.session().at(*nearest)
        for number in itertools.count():
            if stop.is_set():
                return
            key = f"rolling/{name}/{number}"
            try:
                served.add((await _put(session, key)).node)
                written[key] = key
                version = await session.get(key)
                if version is None or version.text != key:
                    failed.append(f"{key} was written, and then read as {version}")
            except LightconeError as error:
                failed.append(f"{key}: {error!r}")
            await asyncio.sleep(PAUSE_S)

    clients = [asyncio.create_task(client(name)) for name in range(CLIENTS)]
    try:
        before = {n: (await cluster.container(f"node{n}")) for n in NUMBERS.values()}
        for number in NUMBERS.values():
            service = f"node{number}"
            await cluster.compose(
                "up", "-d", "--no-build", "--no-deps", "--force-recreate", service
            )
            await cluster.until_healthy(service)
            assert await cluster.container(service) != before[number]
    finally:
        stop.set()
        await asyncio.gather(*clients)
    assert not failed, failed
    assert served == set(cluster.urls.values())
    await until_equal_clocks(cluster.urls)
    limit = asyncio.Semaphore(READS_AT_ONCE)

    async def check(key: str, url: str) -> None:
        async with limit:
            version = await kv.session().at(url).get(key)
        assert version is not None and version.text == key

    await asyncio.gather(*itertools.starmap(check, itertools.product(written, served)))


async def _put(session: Session, key: str) -> Written:
    """The key has itself as its value.

    A connection that the engine has accepted for a container that is just going, or not there yet,
    breaks off, so that the client cannot know what became of the write and leaves it to us.
    """
    for _ in range(TRIES - 1):
        try:
            return await session.put(key, key)
        except OutcomeUnknown:
            continue
    return await session.put(key, key)
