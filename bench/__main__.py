"""`python -m bench`, or `make bench`: what a request costs here, and elsewhere.

What it is: the command line, and a bar while it goes on.

What it assumes and guarantees: Linux. It starts all it needs and ends it again. It ends with 0 when
it has measured, whatever the figures are, and with 2 when it could not. The figures are left as
JSON and as a page, and it says where.

What it does not know: what is measured, and how.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app import log
from app.errors import StartupError
from app.redis_program import find_redis_server
from bench.accounting import ProcessGone, described
from bench.contenders import CONTENDERS, Contender
from bench.load import Loads, Tool, default_tool
from bench.options import count, positive
from bench.report import write_report
from bench.results import OPERATIONS, Result
from bench.rounds import Plan, measure
from bench.samples import Sample
from bench.shown import show

EXIT_NO_RUN: Final = 2
_DIRECTORY: Final = Path("data/bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """It was measured, shown and written down; the result is the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    log.configure("warning", "text", node="bench")
    try:
        contenders, left_out = _chosen(options.contenders, options.fsync)
        plan = Plan(
            contenders,
            options.operations,
            Loads(_tool(options), options.connections, options.sessions),
            options.rounds,
            options.seconds,
            options.warm_up,
            options.keys,
            options.fsync,
            options.minutes,
        )
        began = time.monotonic()
        samples = asyncio.run(_measured(plan, console))
    except (StartupError, ProcessGone, OSError) as error:
        notes = getattr(error, "__notes__", [])
        print("\n".join([f"bench: {error}", *notes]), file=sys.stderr)
        return EXIT_NO_RUN
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("bench: ended before it was done; nothing was written.", file=sys.stderr)
        return EXIT_NO_RUN
    settings = _settings(plan, samples, time.monotonic() - began)
    result = Result(settings, described(), left_out, samples)
    show(result, Console(highlight=False, width=max(console.width, 150)))
    options.directory.mkdir(parents=True, exist_ok=True)
    page, figures = options.directory / "bench.html", options.directory / "bench.json"
    write_report(result, page)
    figures.write_text(json.dumps(result.to_json(), indent=1))
    console.print(f"The page: {page}. The figures: {figures}")
    return 0


async def _measured(plan: Plan, console: Console) -> list[Sample]:
    work = asyncio.current_task()
    assert work is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    with Progress(
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task("", total=plan.steps)

        def tell(what: str, done: int) -> None:
            progress.update(bar, description=what, advance=done)
            if not (console.is_terminal or done):
                console.print(what)

        return await measure(plan, tell)


def _chosen(wanted: Sequence[str], fsync: str) -> tuple[list[Contender], dict[str, str]]:
    """Who is measured, and who is not, and why. Whoever was asked for by name must be there."""
    chosen, left_out = [], {}
    for name in wanted or CONTENDERS:
        if lacks := CONTENDERS[name].lacks(fsync):
            if wanted:
                raise StartupError(f"{name} cannot be measured: {lacks}.")
            left_out[name] = lacks
        else:
            chosen.append(CONTENDERS[name])
    return chosen, left_out


def _tool(options: argparse.Namespace) -> Tool:
    whole = float(options.seconds).is_integer() and float(options.warm_up).is_integer()
    # wrk reads no header of an answer.
    fits = whole and not options.sessions
    if options.load == "wrk":
        if not fits:
            raise StartupError("wrk takes whole seconds, and knows no sessions. Use --load ours.")
        if default_tool() != "wrk":
            raise StartupError("wrk is not installed (on Debian and Ubuntu: apt-get install wrk).")
    tool: Tool | None = options.load
    return tool or (default_tool() if fits else "ours")


def _settings(plan: Plan, samples: Sequence[Sample], took_s: float) -> dict[str, str]:
    rounds = 1 + max(sample.round for sample in samples)
    redis = find_redis_server()
    return {
        "rounds": f"{rounds} of {plan.rounds}",
        "each measurement": f"{plan.seconds:g} s; before all of them {plan.warm_up_s:g} s of each",
        "connections": str(plan.loads.connections),
        "sessions": "each connection is one" if plan.loads.sessions else "none",
        "keys": f"{plan.keys:,}, with values of 100 bytes",
        "fsync": plan.fsync,
        "load": {"wrk": "wrk; at half load bench/generator.py"}.get(
            plan.loads.tool, "bench/generator.py"
        ),
        "redis-server": f"{redis.version[0]}.{redis.version[1]}",
        "load of the machine when it ended": f"{os.getloadavg()[0]:.1f}",
        "took": f"{took_s:.0f} s",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure what a request costs at this node, and at what one might use instead.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=CONTENDERS,
        default=[],
        metavar="NAME",
        help=f"who is measured: some of {' '.join(CONTENDERS)} (all that are installed)",
    )
    parser.add_argument(
        "--operations",
        nargs="+",
        choices=OPERATIONS,
        default=OPERATIONS,
        metavar="NAME",
        help="PUT, GET (both)",
    )
    parser.add_argument("--rounds", type=count, default=25, help="how many (25)")
    parser.add_argument(
        "--seconds", type=positive, default=1.0, help="how long each measurement takes (1)"
    )
    parser.add_argument(
        "--warm-up", type=positive, default=2.0, help="seconds before the first round, of each (2)"
    )
    parser.add_argument("--connections", type=count, default=64, help="at once (64)")
    parser.add_argument("--keys", type=count, default=1000, help="how many different ones (1000)")
    parser.add_argument(
        "--fsync", choices=("always", "everysec"), default="always", help="of all (always)"
    )
    parser.add_argument(
        "--load", choices=("wrk", "ours"), help="what makes the load (wrk, if it is installed)"
    )
    parser.add_argument(
        "--sessions", action="store_true", help="each connection carries its causal context"
    )
    parser.add_argument(
        "--minutes", type=positive, default=60.0, help="after so many no round is begun (60)"
    )
    parser.add_argument(
        "--directory", type=Path, default=_DIRECTORY, help=f"where it is written ({_DIRECTORY})"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
