"""A file is there as a whole, or as it was."""

import os
from pathlib import Path

import pytest

from client.files import replaced


def test_a_file_is_replaced_at_the_end_of_its_block(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with replaced(file) as out:
        out.write(b"new")
        out.flush()
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_stays_as_it_was_if_its_block_fails(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replaced(file) as out:
        out.write(b"new")
        raise ZeroDivisionError
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_private_file_is_for_its_owner_and_another_for_whom_the_umask_lets(
    tmp_path: Path,
) -> None:
    before = os.umask(0o022)
    try:
        for name, private, mode in (("private", True, 0o600), ("plain", False, 0o644)):
            with replaced(tmp_path / name, private=private):
                pass
            assert (tmp_path / name).stat().st_mode & 0o777 == mode
        assert os.umask(0o022) == 0o022, "the umask is as it was"
    finally:
        os.umask(before)


def test_a_file_that_is_replaced_stays_as_readable_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    file.chmod(0o600)
    with replaced(file) as out:
        out.write(b"new")
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"new", 0o600)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "elsewhere" / "file"
    file.parent.mkdir()
    link.symlink_to(file)
    for text in (b"new", b"newer"):
        with replaced(link) as out:
            out.write(text)
        assert link.is_symlink() and file.read_bytes() == text
    assert os.listdir(file.parent) == ["file"]


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    """Who is root would else have a file for /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with replaced(pipe) as out:
            out.write(b"new")
        assert pipe.is_fifo() and os.read(reading, 9) == b"new"
    finally:
        os.close(reading)
    assert os.listdir(tmp_path) == ["pipe"]


def test_where_no_file_can_be_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError), replaced(tmp_path / "file"):
        pass
    with pytest.raises(FileNotFoundError), replaced(tmp_path / "none" / "file"):
        pass
    assert os.listdir(tmp_path) == ["file"]
