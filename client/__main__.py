"""`python -m client`, or `lightcone` where the package is installed: the command line.

Completion is a matter of shells, which complete programs by their name. So only `lightcone` has the
options that install it.
"""

import os
import sys
from pathlib import Path

from client.cli import made
from client.cli_command import unwritten
from client.cli_output import Screen


def main() -> None:
    """The command has been carried out; the process ends with its code."""
    # A stream that was closed before we began is none for Python; nobody is there to read it.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    name = Path(sys.argv[0]).name
    is_module = name == "__main__.py"
    try:
        made(completion=not is_module)(prog_name="python -m client" if is_module else name)
    except OSError as error:  # what a command says is looked after there: this is a help
        sys.exit(unwritten(error, Screen(as_json=False), "not_applied"))


if __name__ == "__main__":
    main()
