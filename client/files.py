"""A file that is there as a whole, or as it was.

What it is: `replaced`, a file to be written, which takes its place under its name at the end.

What it assumes and guarantees: whoever opens the name finds the old file or the new one, on disk to
its last byte, also after a crash; and what fails leaves nothing behind. What is there and no file,
such as /dev/null or a pipe, is never replaced: it is written to. Raises OSError.

What it does not know: what is in the file.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replaced(file: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """What is written within takes the place of `file`, unless an error ends the block.

    It is readable to its owner alone if it is `private`, else to whom the old one was, or, if there
    was none, like any file that is made here. A link stays one, to the new file.
    """
    if file.exists() and not file.is_file():
        with file.open("wb") as out:
            yield out
        return
    file = Path(os.path.realpath(file))
    handle, beside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        if not private:  # mkstemp lets only the owner read
            os.chmod(beside, _mode(file))
        os.replace(beside, file)
    except BaseException:  # also Ctrl-C: nothing is left beside the file
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _mode(file: Path) -> int:
    """Who may do what with the file; if there is none, with one that is made here."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_IMODE(file.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
