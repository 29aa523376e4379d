"""Files of puts: all of a file is in, in its order, or it is said how far it came."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from client import BadInput, Lightcone, LightconeError
from client.loading import BATCH_LINES, Progress, load, read
from tests.client.fake_node import FakeNode


def line(key: str, value: str) -> bytes:
    return json.dumps({"key": key, "value": value}).encode() + b"\n"


async def given(*lines: bytes) -> AsyncIterator[Sequence[bytes]]:
    """The lines, as a file has them: all at once."""
    yield lines


async def value_of(kv: Lightcone, key: str) -> str | None:
    version = await kv.get(key)
    return None if version is None else version.text


async def test_all_lines_are_in_and_the_session_has_seen_them(kv: Lightcone) -> None:
    lines = [line(f"key-{n}", f"{n}") for n in range(3 * BATCH_LINES + 7)]
    told: list[Progress] = []
    done = await load(kv, given(*lines, b"\n"), told.append)
    assert done == Progress(len(lines) + 1, sum(map(len, lines)) + 1, len(lines)) == told[-1]
    assert [one.lines for one in told] == sorted(one.lines for one in told)
    assert [key async for key in kv.list()] == sorted(f"key-{n}" for n in range(len(lines)))
    assert await value_of(kv, "key-300") == "300"
    assert kv.context == "lc1;A:4"


async def test_of_several_lines_about_a_key_the_last_one_holds(kv: Lightcone) -> None:
    lines = [line(f"key-{n % 7}", f"{n}") for n in range(20 * BATCH_LINES)]
    await load(kv, given(*lines))
    for n in range(7):
        last = max(m for m in range(len(lines)) if m % 7 == n)
        assert await value_of(kv, f"key-{n}") == f"{last}"
    assert not [conflict async for conflict in kv.conflicts()]


async def test_bytes_and_types_come_as_they_are(kv: Lightcone) -> None:
    await load(kv, given(b'{"key": "x", "base64": "/wA=", "content_type": "image/x"}'))
    version = await kv.get("x")
    assert version and (version.value, version.content_type) == (b"\xff\0", "image/x")


async def test_an_empty_file_is_loaded_at_once(kv: Lightcone) -> None:
    assert await load(kv, given()) == Progress()
    assert await load(kv, given(b"\n", b" ")) == Progress(2, 2, 0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"{", "Line 5 is no put"),
        (b"[1]", "Expected `object`, got `array`"),
        (b'{"value": "x"}', "missing required field `key`"),
        (b'{"key": 1, "value": "x"}', r"Expected `str`, got `int` - at `\$.key`"),
        (b'{"key": "x"}', "it has `value`, which is text, or `base64`"),
        (b'{"key": "x", "value": "x", "base64": ""}', "and not both"),
        (b'{"key": "x", "value": 1}', r"Expected `str`, got `int` - at `\$.value`"),
        (b'{"key": "x", "base64": "!"}', "Line 5 is no put"),
        (b'{"key": "x", "base64": 1}', "Line 5 is no put"),
        (b'{"key": "x", "value": "x", "content_type": 1}', r"at `\$.content_type`"),
        (b'{"key": "x", "value": "x", "tll": 1}', "unknown field `tll`"),
        (b'{"key": "", "value": "x"}', "Line 5 is no put: A key has 1 to 512 bytes"),
        (b'{"key": "x", "value": "x", "content_type": "\\n"}', "is not a content type. It was not"),
        (b"\xff\xfe", "Line 5 is no put"),
    ],
)
def test_what_is_no_put_is_told_with_its_line(text: bytes, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        read(text, 5)


async def test_a_bad_line_ends_the_load_and_what_is_before_it_is_in(kv: Lightcone) -> None:
    told: list[Progress] = []
    lines = [line(f"key-{n}", "x") for n in range(BATCH_LINES + 1)]
    with pytest.raises(BadInput, match=f"Line {len(lines) + 1} is no put"):
        await load(kv, given(*lines, b"garbage\n", line("later", "x")), told.append)
    assert told[-1].lines == len(lines)
    assert await value_of(kv, f"key-{BATCH_LINES}") == "x"
    assert await value_of(kv, "later") is None


async def test_what_a_node_refuses_ends_the_load(kv: Lightcone) -> None:
    lines = [line("ok", "x"), *(line("ok", "y") for _ in range(BATCH_LINES)), line("\0x", "x")]
    with pytest.raises(BadInput, match="key"):
        await load(kv, given(*lines))
    assert await value_of(kv, "ok") == "y", "the first batch was in before"


async def test_without_a_node_nothing_is_in(a: FakeNode) -> None:
    told: list[Progress] = []
    async with Lightcone([a.url], timeout_s=2) as kv:
        await a.stop()
        with pytest.raises(LightconeError):
            await load(kv, given(line("x", "1")), told.append)
    assert not told


async def test_what_has_come_does_not_wait_for_lines_that_are_slow(
    kv: Lightcone, until: Callable[..., Awaitable[None]]
) -> None:
    told = [Progress()]

    async def slow() -> AsyncIterator[Sequence[bytes]]:
        for n in range(3):
            yield [line(f"{n}", "x"), line(f"{n}", "y")]
            assert told[-1].lines == 2 * n, "there may be more of them at once"
            yield []
            await until(lambda lines=2 * n + 2: told[-1].lines == lines)

    assert (await load(kv, slow(), told.append)).puts == 6
    assert [await value_of(kv, f"{n}") for n in range(3)] == ["y"] * 3


async def test_what_fails_ends_a_load_that_waits_for_lines(kv: Lightcone) -> None:
    async def endless() -> AsyncIterator[Sequence[bytes]]:
        yield [line("\0x", "refused")]
        yield []
        await asyncio.Event().wait()

    with pytest.raises(BadInput, match="key"):
        await load(kv, endless())


async def test_where_lines_end_in_an_error_what_was_under_way_has_ended(kv: Lightcone) -> None:
    async def broken() -> AsyncIterator[Sequence[bytes]]:
        yield [line(f"{n}", "x") for n in range(3 * BATCH_LINES)]
        raise OSError("worn out")

    told: list[Progress] = []
    with pytest.raises(OSError, match="worn out"):
        await load(kv, broken(), told.append)
    assert told[-1].puts == 3 * BATCH_LINES
    assert await value_of(kv, f"{3 * BATCH_LINES - 1}") == "x"
