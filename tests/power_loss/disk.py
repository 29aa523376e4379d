"""A pretended disk under a node's data: it knows what was synced, and loses the rest.

What it is: `Disk`. A node that runs in its `environment` reports each sync, rename and removal
(synced.c, a library that is put before libc). `lose` then makes its directory what a power cut
might have left, once every process of the node is dead; `cut_power` sees to that.

What it assumes and guarantees: of each file, what it held when its last sync began is kept. Of
what was written later each file keeps nothing, a part, or all of it, or gets something else in its
place, as the way of losing says. Names are those of a journalling file system: they change in the
order in which they were changed, and a sync of anything makes all changes before it last; of the
later ones, some of the last are undone. That a file was created is taken for durable.

What it does not know: what the files hold, and what Redis makes of them. Nor a disk that breaks
its word: one that loses what it has synced, or tears a hole into it.

Where the idea is from: ALICE (Pillai et al., "All File Systems Are Not Created Equal", 2014), and
SQLite's tests of crashes.
"""

import os
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final, Literal

from app.local_nodes import LocalCluster, children_of

Way = Literal["nothing kept", "a part kept", "all kept", "zeros", "garbage"]
WAYS: Final[tuple[Way, ...]] = ("nothing kept", "a part kept", "all kept")
"""What becomes of the bytes that were not synced, on file systems that write data before sizes."""
SPOILT: Final[tuple[Way, ...]] = ("zeros", "garbage")
"""And on those that do not: the file has its new size, and something else in it."""

_SOURCE: Final = Path(__file__).with_name("synced.c")


def why_no_disk() -> str:
    """Why the disk cannot be pretended here; empty if it can."""
    if not Path("/proc/self/fd").exists():
        return "needs Linux, for LD_PRELOAD and /proc"
    return "" if shutil.which("cc") else "needs a C compiler (Debian: gcc and libc6-dev)"


def build_library(directory: Path) -> Path:
    """The compiled synced.c, made in `directory`."""
    library = directory / "synced.so"
    subprocess.run(
        [*("cc", "-O1", "-Wall", "-shared", "-fPIC", "-o"), str(library), str(_SOURCE), "-ldl"],
        check=True,
    )
    return library


def environment(library: Path, data: Path, notes: Path, sync_ms: float) -> dict[str, str]:
    """What makes nodes under `data` report their syncs, each of which takes so long, to `notes`."""
    return {
        "LD_PRELOAD": str(library),
        "SYNCED_ROOT": str(data),
        "SYNCED_NOTES": str(notes),
        "SYNCED_DELAY_US": str(int(sync_ms * 1000)),
    }


class Disk:
    """One node's directory under `data`, and what of it would outlast a power cut."""

    def __init__(self, node: str, data: Path, notes: Path) -> None:
        """An empty disk. `data` and `notes` are on one file system, and are in its environment."""
        self._directory = data / node
        self._notes = notes / node
        self._journal = self._notes / "journal"
        self._stalled = self._notes / "stalled"
        self._kept: dict[int, int] = {}
        self._directory.mkdir(parents=True)
        self._notes.mkdir(parents=True)

    def stall(self) -> None:
        """No sync ends any more, until `go_on`."""
        self._stalled.touch()

    def go_on(self) -> None:
        """Syncs end again."""
        self._stalled.unlink(missing_ok=True)

    def syncs(self) -> int:
        """How many syncs have ended since the last power cut."""
        return sum(fields[0] == "sync" for _, fields in self._notes_so_far())

    def holds(self, part: bytes) -> bool:
        """Whether a file of the node has `part` in it, synced or not."""
        return any(part in path.read_bytes() for path in self._files())

    def append_only_file(self) -> Path:
        """What Redis reads first of what it has kept: from version 7 on a list of files."""
        manifest = self._directory / "appendonlydir" / "appendonly.aof.manifest"
        return manifest if manifest.exists() else self._directory / "appendonly.aof"

    def lose(self, way: Way, rng: random.Random) -> int:
        """The power was cut: nothing is certain to be there that was not synced.

        Returns how many bytes were. No process uses the disk.
        """
        self._undo_names(rng)
        synced = dict(self._kept)
        for _, fields in self._notes_so_far():
            if fields[0] == "sync":
                synced[int(fields[1])] = int(fields[2])
        unsynced = 0
        for path in self._files():
            size, kept = path.stat().st_size, synced.get(path.stat().st_ino, 0)
            if size > kept:
                unsynced += size - kept
                _lose_tail(path, kept, size - kept, way, rng)
        self._forget()
        return unsynced

    def _undo_names(self, rng: random.Random) -> None:
        notes = self._notes_so_far()
        certain = max((int(fields[3]) for _, fields in notes if fields[0] == "sync"), default=0)
        later = [fields for at, fields in notes if fields[0] != "sync" and at >= certain]
        for fields in reversed(later[rng.randint(0, len(later)) :]):
            if fields[0] == "rename":
                os.rename(fields[2], fields[1])
            path, kept = fields[-2], fields[-1]
            if kept != "-":
                Path(path).unlink(missing_ok=True)  # made there anew, later still
                os.link(kept, path)

    def _notes_so_far(self) -> list[tuple[int, list[str]]]:
        """Each note, and where in the journal it begins."""
        notes, at = [], 0
        journal = self._journal.read_bytes() if self._journal.exists() else b""
        for line in journal.splitlines(keepends=True):
            notes.append((at, line.decode().rstrip("\n").split("\t")))
            at += len(line)
        return notes

    def _files(self) -> list[Path]:
        return sorted(path for path in self._directory.rglob("*") if path.is_file())

    def _forget(self) -> None:
        """What is on the disk now has outlasted a power cut, and so it is certain."""
        self._kept = {path.stat().st_ino: path.stat().st_size for path in self._files()}
        for path in self._notes.iterdir():
            path.unlink()


def _lose_tail(path: Path, kept: int, lost: int, way: Way, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(kept)
        match way:
            case "nothing kept":
                file.truncate()
            case "a part kept":
                file.truncate(kept + rng.randint(0, lost))
            case "all kept":
                pass
            case "zeros":
                file.write(bytes(lost))
            case "garbage":
                file.write(rng.randbytes(lost))


async def cut_power(cluster: LocalCluster, node: str) -> None:
    """Every process of the node has ended, wherever it was."""
    redis = cluster.redis_pid(node)
    if redis is not None:
        os.kill(redis, signal.SIGSTOP)  # so that no child of it is born from here on
        for child in children_of(redis):
            os.kill(child, signal.SIGKILL)
    await cluster.kill(node)
