"""`python -m app` starts one node.

What it is: the command line. What it assumes and guarantees: what cannot start says so in plain
words on stderr and ends with code 2. What it does not know: what a node does. Where the idea is
from: the convention for Python packages that can be run.
"""

import argparse
import os
import sys
from pathlib import Path

from app import __version__, log, server
from app.config import Config
from app.environment import config_from_env
from app.errors import StartupError
from app.settings_text import probable_mistakes, settings_table


def main(arguments: list[str] | None = None) -> int:
    """The command has been carried out; the result is the exit code."""
    options = _parser().parse_args(arguments)
    if options.worker is not None:
        return server.run_as_worker(options.worker)
    if options.settings:
        return _shown(settings_table(Config))
    try:
        config = config_from_env(options.env_file)
        server.configure_log(config)
        for mistake in probable_mistakes(os.environ, Config):
            log.get_logger(__name__).warning(mistake)
        return server.run(config, until_eof=options.until_eof)
    except StartupError as error:
        print(error, file=sys.stderr)
        return server.EXIT_CANNOT_START


def _shown(text: str) -> int:
    """The text is on stdout, unless that is closed or full; the result is the exit code."""
    try:
        print(text, flush=True)
    except OSError as error:
        # Nothing more can be said there, not even by Python as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0
        print(f"The settings cannot be shown: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="Start one Lightcone node. Settings come from the environment.",
        allow_abbrev=False,
    )
    parser.add_argument("--env-file", type=Path, metavar="FILE", help="read settings from FILE too")
    parser.add_argument("--settings", action="store_true", help="list all settings, and end")
    parser.add_argument("--version", action="version", version=f"lightcone {__version__}")
    parser.add_argument(
        "--until-eof", action="store_true", help="stop also when standard input ends"
    )
    parser.add_argument("--worker", metavar="FDS", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
