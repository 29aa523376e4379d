"""What expires, by the client and on the command line, against a node with a clock of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from client import BadInput, Change, Cut, KeyState, Lightcone, blocking
from client.loading import load, read
from tests.checker.history import BadHistory, read_history
from tests.client.test_cli import Run, run  # noqa: F401 (a fixture)
from tests.client.test_loading import given
from tests.one_node import Client, node_a
from tests.test_expiry import BEGIN_US, Clock

IN_A_MINUTE = BEGIN_US + 60_000_000
TO_THE_SECOND = IN_A_MINUTE - 250_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def node(redis_url: str, clock: Clock) -> AsyncIterator[Client]:
    async with node_a(redis_url, now_us=clock, expiry_ms=3_600_000) as client:
        yield client


@pytest.fixture
def url(node: Client) -> Iterator[str]:
    yield str(node.make_url("/"))


@pytest.fixture
async def kv(url: str) -> AsyncIterator[Lightcone]:
    async with Lightcone([url]) as kv:
        yield kv


async def test_a_put_with_a_ttl_says_when_it_will_be_gone(kv: Lightcone, clock: Clock) -> None:
    assert (await kv.put("lunch", "noon?", ttl_s=60)).expires == TO_THE_SECOND
    lunch = await kv.get("lunch")
    assert lunch and lunch.expires == TO_THE_SECOND
    [version] = await kv.siblings("lunch")
    assert version.expires == IN_A_MINUTE
    assert (await kv.explain("lunch"))["versions"][0]["expires"] == IN_A_MINUTE
    clock.pass_s(60)
    assert await kv.get("lunch") is None
    assert [key async for key in kv.list()] == []


async def test_without_one_it_stays(kv: Lightcone) -> None:
    await kv.put("lunch", "noon?", ttl_s=60)
    assert (await kv.put("lunch", "later")).expires is None
    lunch = await kv.get("lunch")
    assert lunch and lunch.expires is None
    assert "expires" not in (await kv.explain("lunch"))["versions"][0]


@pytest.mark.parametrize("ttl_s", [0, -1, 1e-9, 4e9, float("inf"), float("nan"), "60"])
async def test_a_ttl_that_is_none_is_refused_unsent(kv: Lightcone, ttl_s: Any) -> None:
    with pytest.raises(BadInput, match="ttl_s is a number of seconds"):
        await kv.put("lunch", "noon?", ttl_s=ttl_s)
    with pytest.raises(BadInput, match="ttl_s is a number of seconds"):
        kv.txn().put("lunch", "noon?", ttl_s=ttl_s)


@pytest.mark.parametrize("ttl_s", [1e-6, 0.1, 1.5, 86400, 3153600000])
async def test_any_other_arrives_to_the_microsecond(kv: Lightcone, ttl_s: float) -> None:
    await kv.put("lunch", "noon?", ttl_s=ttl_s)
    [version] = await kv.siblings("lunch")
    assert version.expires == BEGIN_US + round(ttl_s * 1e6)


async def test_a_transaction_puts_what_expires(kv: Lightcone, clock: Clock) -> None:
    async with kv.txn() as txn:
        txn.put("lock", "me", ttl_s=60, if_none_match="*")
        txn.put("log", "x")
    assert txn.result.expires == {"lock": IN_A_MINUTE}
    async with kv.txn() as txn:
        txn.get("lock")
    lock = txn.result.winner("lock")
    assert lock and lock.expires == IN_A_MINUTE
    clock.pass_s(60)
    async with kv.txn() as txn:
        txn.get("lock")
    assert txn.result.winner("lock") is None


async def test_a_watcher_is_told_when_and_not_that(kv: Lightcone, clock: Clock) -> None:
    await kv.put("lunch", "noon?", ttl_s=60)
    watching = kv.watch()
    told: list[Any] = [await anext(watching) for _ in range(3)]
    state, cut = told[1:]
    assert isinstance(state, KeyState) and state.siblings[0].expires == IN_A_MINUTE
    assert isinstance(cut, Cut)
    clock.pass_s(60)
    await kv.put("dinner", "eight?", ttl_s=60)
    change = await anext(watching)
    assert isinstance(change, Change)
    [operation] = change.operations
    assert operation.expires == change.timestamp + 60_000_000
    await watching.aclose()


async def test_lines_of_a_file_may_expire(kv: Lightcone) -> None:
    lunch_line = b'{"key": "lunch", "value": "x", "ttl": 60}'
    await load(kv, given(lunch_line, b'{"key": "tea", "value": "y"}'))
    lunch, tea = await kv.get("lunch"), await kv.get("tea")
    assert lunch and lunch.expires == TO_THE_SECOND
    assert tea and tea.expires is None
    with pytest.raises(BadInput, match="Line 5 is no put: `ttl` is"):
        read(b'{"key": "x", "value": "x", "ttl": 0}', 5)


async def test_the_client_for_scripts_has_it_too(url: str) -> None:
    def script() -> int | None:
        with blocking(Lightcone([url])) as kv:
            return kv.put("lunch", "noon?", ttl_s=60).expires

    assert await asyncio.to_thread(script) == TO_THE_SECOND


async def test_a_history_says_so_and_is_not_checked(url: str, tmp_path: Path) -> None:
    """For that something is gone is nobody's operation."""
    file = tmp_path / "history.jsonl"
    async with Lightcone([url], record=str(file)) as kv:
        await kv.put("lunch", "1", ttl_s=60)
        async with kv.txn() as txn:
            txn.put("lunch", "2", ttl_s=60)
    put, transaction = map(json.loads, file.read_text().splitlines())
    assert put["ttl"] == 60 and transaction["writes"][0]["ttl"] == 60
    for line in (put, transaction):
        with pytest.raises(BadHistory, match="it puts what expires"):
            read_history([json.dumps(line)])


async def test_the_command_line_puts_and_shows_it(run: Run, url: str) -> None:  # noqa: F811
    done = await run("put", "lunch", "noon?", "--ttl", "60", "--node", url)
    assert done.exit_code == 0 and "Expires 2027-01-15 08:01:00" in done.stderr
    shown = await run("get", "lunch", "--node", url)
    assert shown.stdout == "noon?" and "Expires 2027-01-15 08:01:00" in shown.stderr
    as_json = json.loads((await run("get", "lunch", "--siblings", "--json", "--node", url)).stdout)
    assert as_json["siblings"][0]["expires"] == IN_A_MINUTE
    for command in (("get", "lunch", "--siblings"), ("explain", "lunch")):
        assert "2027-01-15 08:01:00.250Z" in (await run(*command, "--node", url)).stdout
    ops = b'[{"put": "tea", "value": "x", "ttl": 60}]'
    done = await run("txn", "-", "--node", url, stdin=ops)
    assert "expires 2027-01-15 08:01:00.250Z" in done.stdout
