"""A file that is there as a whole, or as it was.

What it is: `replaced`, a file to be written, which takes its place under its name at the end.

What it assumes and guarantees: whoever opens the name finds the old file or the new one, on disk to
its last byte, also after a crash; and what fails leaves nothing behind. Raises OSError.

What it does not know: what is in the file.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replaced(file: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """What is written within takes the place of `file`, unless an error ends the block.

    It is readable to its owner alone if it is `private`, else like any file that is made here.
    """
    handle, beside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        if not private:
            # mkstemp lets only the owner read.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(beside, 0o666 & ~umask)
        os.replace(beside, file)
    except BaseException:  # also Ctrl-C: nothing is left beside the file
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
