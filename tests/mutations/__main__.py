"""`python -m tests.mutations`: every mutation is hunted, and a table says how soon it was noticed.

What it is: the command line. What it assumes and guarantees: it ends 1 if a mutation survived.
What it does not know: what the mutations are about.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from statistics import mean

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.mutations.hunt import Caught, hunt
from tests.mutations.mutations import MUTATIONS

_APART = 10_000
"""Between the first seeds of two starts."""


def main(arguments: list[str] | None = None) -> int:
    """The command has been carried out; the result is the exit code."""
    options = _parser().parse_args(arguments)
    chosen = [m for m in MUTATIONS if options.only.lower() in m.name.lower()]
    console = Console(highlight=False, markup=False)
    table = Table("guarantee", "mutation", "seeds needed", "mean", "noticed as", box=None)
    survivors = []
    with Progress(console=console) as progress, ThreadPoolExecutor(options.j) as pool:
        bar = progress.add_task("mutations", total=len(chosen))
        hunts = {
            mutation: [
                pool.submit(hunt, mutation, start * _APART, options.most, options.clients_only)
                for start in range(options.starts)
            ]
            for mutation in chosen
        }
        for mutation, tries in hunts.items():
            results = [one.result() for one in tries]
            progress.advance(bar)
            caught = [one for one in results if one is not None]
            if not caught:
                survivors.append(mutation.name)
            figures = _figures(results, caught, options.most, mutation.profile)
            table.add_row(mutation.guarantee, mutation.name, *figures)
            progress.console.print(f"{mutation.name}: {', '.join(figures)}")
    console.width = max(console.width, 150)
    console.print(table)
    if survivors:
        console.print("\nsurvived: " + ", ".join(survivors))
    return 1 if survivors else 0


def _figures(
    results: list[Caught | None], caught: list[Caught], most: int, profile: str | None
) -> tuple[str, str, str]:
    needed = " ".join("-" if one is None else str(one.seeds) for one in results)
    # Such seeds are not to be compared with seeds of all kinds.
    needed += f" of {profile}" if profile else ""
    if not caught:
        return needed, "-", "SURVIVED"
    at_least = ">" if len(caught) < len(results) else ""
    seeds = mean(most if one is None else one.seeds for one in results)
    words = caught[0].violation.strip().splitlines()[-1]
    return needed, f"{at_least}{seeds:.1f}", words[:75]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutations",
        description="Break a copy of the store in one way after the other; see that it is noticed.",
        allow_abbrev=False,
    )
    parser.add_argument("--starts", type=int, default=3, metavar="N", help="first seeds to try (3)")
    parser.add_argument("--most", type=int, default=100, metavar="N", help="seeds from each (100)")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="mutations with this in the name"
    )
    parser.add_argument("-j", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument(
        "--clients-only", action="store_true", help="notice only what clients can notice"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
