"""A session that goes on from one command to the next: its context, in a file.

What it is: `SessionFile`, the context of a named session.

What it assumes and guarantees: commands of one session that run together lose nothing of each
other's: a command that ends keeps what is in the file by then and was not there when it began, and
adds what it has seen itself, which covers the rest. The file is locked while that is done, not
while a request is under way. It is replaced as a whole, so that no crash leaves half of it. Only
its owner can read it.

What it does not know: what is in a context.

Where the idea is from: `client/context.py`, whose rule for requests under way together this is, for
commands.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from client.cli_errors import LocalTrouble
from client.context import Context
from client.errors import BadInput
from client.files import replaced

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def named(name: str) -> Path:
    """Where the session of this name is kept.

    Raises BadInput when it cannot be a name, or there is no place for it.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"{name!r} cannot name a session: use letters, digits, `_`, `.` and `-`, 100 at most, "
            "and begin with a letter, digit or `_`; or use --session-file. Nothing was sent."
        )
    # As the XDG base directories say: what is not absolute is ignored.
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    except RuntimeError:
        raise BadInput(
            "Sessions are kept in a home directory, and this user has none: use --session-file, "
            "or set XDG_STATE_HOME. Nothing was sent."
        ) from None
    return base / "lightcone" / "sessions" / name


class SessionFile:
    """The context of a session, in a file that need not be there yet."""

    def __init__(self, path: Path) -> None:
        """The context is read. Raises BadInput if it is none, LocalTrouble if it cannot be."""
        self._path = path
        with self._trouble("not_applied"), self._locked():
            self._began_with = self._read()

    @property
    def context(self) -> str:
        """What the session had seen when the file was read."""
        return ",".join(self._began_with)

    def keep(self, context: str) -> None:
        """The file covers this context, which covers what was read, and all that others added.

        Raises LocalTrouble.
        """
        with self._trouble("applied"), self._locked():
            try:
                there = self._read()
            except BadInput as error:
                raise LocalTrouble(str(error), "applied") from None
            seen = {token: None for token in there if token not in self._began_with}
            seen |= dict.fromkeys(_tokens(context))
            with replaced(self._path, private=True) as out:
                out.write(f"{','.join(seen)}\n".encode("ascii"))

    def _read(self) -> tuple[str, ...]:
        try:
            printed = self._path.read_text("ascii").strip()
            Context(printed)
        except FileNotFoundError:
            return ()
        except (UnicodeDecodeError, BadInput):
            raise BadInput(
                f"{self._path} holds no context; take it away to begin a new session."
            ) from None
        return _tokens(printed)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # A file of its own, for the other one is replaced.
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(
            self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _trouble(self, outcome: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            lost = "nothing was sent" if outcome == "not_applied" else "it lacks the last request"
            raise LocalTrouble(
                f"The session file {self._path} cannot be used: {error.strerror}; {lost}.", outcome
            ) from None


def _tokens(printed: str) -> tuple[str, ...]:
    return tuple(filter(None, (token.strip() for token in printed.split(","))))
