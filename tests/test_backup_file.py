"""A backup that is not whole is noticed, wherever it was cut short or altered."""

import pytest

from app.backup_file import Header, Reader, Writer
from app.errors import BadBackup
from app.snapshot import Cut, KeyState, Part
from app.vector_clock import Dot, VectorClock
from app.write import Version
from client.backups import _Frames

HEADER = Header("A", 1_700_000_000_000_000, 2, {"B": "b1"})


def part(n: int, *, last: bool = False) -> Part:
    version = Version(Dot("A", n), n, "text/plain", b"value\n\0")
    state = KeyState(f"key-{n}", (version,), VectorClock())
    cut = Cut(VectorClock({"A": n}), VectorClock(), n) if last else None
    return Part("s1", "", "", 2, (state,), cut)


PARTS = [part(1), part(2), part(3, last=True)]


def whole() -> bytes:
    writer = Writer()
    return b"".join([writer.header(HEADER), *map(writer.part, PARTS), writer.end()])


def read(data: bytes, step: int = 7) -> tuple[list[Part], Reader]:
    reader = Reader(1000)
    found: list[Part] = []
    for start in range(0, len(data), step):
        found += reader.feed(data[start : start + step])
    return found, reader


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_what_was_written_is_read(step: int) -> None:
    found, reader = read(whole(), step)
    assert found == PARTS
    assert reader.header == HEADER
    assert reader.is_whole


def test_cut_short_anywhere_it_never_gives_its_last_part() -> None:
    data = whole()
    for length in range(len(data)):
        found, reader = read(data[:length])
        assert not reader.is_whole
        assert PARTS[-1] not in found


@pytest.mark.parametrize("bits", [0x01, 0xC1])
def test_altered_anywhere_it_never_gives_its_last_part(bits: int) -> None:
    """And it is refused as what it is, if at all before its end."""
    data = whole()
    for at in range(len(data)):
        damaged = data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]
        reader, found = Reader(1000), []
        try:
            for start in range(0, len(damaged), 50):
                found += reader.feed(damaged[start : start + 50])
        except BadBackup:
            pass
        assert not reader.is_whole
        assert all(part.cut is None for part in found)


def test_what_comes_after_the_end_is_no_backup() -> None:
    with pytest.raises(BadBackup, match="goes on after its end"):
        read(whole() + b"x")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PK\3\4 something else entirely", "no backup of Lightcone"),
        (b"lightcone-backup 3 {}\n", "this release reads 1 and 2"),
        (b"lightcone-backup 2 {}\n", "first line"),
        (b'lightcone-backup 2 {"x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}\n", "first line"),
        (b"lightcone-backup 2 " + b"x" * 70_000, "no backup"),
    ],
)
def test_what_is_no_backup_is_told_so(data: bytes, says: str) -> None:
    with pytest.raises(BadBackup, match=says):
        read(data)


@pytest.mark.parametrize("packed", [b"no part", b"\x96\xa2\xff\xff\xa0\xa0\x00\x90\xc0"])
def test_a_part_that_cannot_be_read_makes_it_no_backup(packed: bytes) -> None:
    data = whole()
    first_line = data.index(b"\n") + 1
    bad = data[:first_line] + len(packed).to_bytes(4, "big") + bytes(4) + packed
    with pytest.raises(BadBackup, match=r"part of a snapshot cannot be read.*Nothing was changed"):
        read(bad)


def test_a_part_that_is_too_large_is_refused_before_it_is_read() -> None:
    data = whole()
    first_line = data.index(b"\n") + 1
    huge = data[:first_line] + (2**31).to_bytes(4, "big") + bytes(4)
    with pytest.raises(BadBackup, match="REPLICATE_MAX_BYTES"):
        read(huge)


def test_the_client_sees_the_same() -> None:
    """It shares no code with the nodes."""
    data = whole()
    frames = _Frames()
    for start in range(0, len(data), 7):
        frames.feed(data[start : start + 7])
    assert (frames.is_whole, frames.keys, frames.total) == (True, 3, 2)
    for length in range(0, len(data), 3):
        frames = _Frames()
        frames.feed(data[:length])
        assert not frames.is_whole
    for at in range(len(data)):
        damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        frames = _Frames()
        try:
            frames.feed(damaged)
        except (LookupError, ValueError):
            continue
        assert not frames.is_whole
