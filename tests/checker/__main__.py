"""`python -m tests.checker FILE.jsonl`: checks a history and says what is wrong with it.

What it is: the command. `-` reads standard input.

What it assumes and guarantees: it ends with 0 when nothing was found, 1 when something was, 2 when
the history could not be read.

What it does not know: how histories come about.
"""

import argparse
import gc
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.checker.check import MEANING, Report, check_all
from tests.checker.explain import Explainer
from tests.checker.history import BadHistory, read_history

EXIT_GOOD, EXIT_FOUND, EXIT_BAD_HISTORY = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns how it ends."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.checker", description="Checks a history of client operations."
    )
    parser.add_argument("file", help="JSON lines; - for standard input")
    parser.add_argument(
        "--explain",
        type=int,
        default=3,
        metavar="N",
        help="of each pattern explain N (%(default)s)",
    )
    parser.add_argument(
        "--no-dots", action="store_true", help="go by sessions and values alone, not by dots"
    )
    options = parser.parse_args(arguments)
    try:
        if options.file == "-":
            operations = read_history(sys.stdin)
        else:
            with Path(options.file).open(encoding="utf-8") as lines:
                operations = read_history(lines)
        reports = check_all(operations, use_dots=not options.no_dots)
    except (BadHistory, OSError, UnicodeDecodeError) as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_HISTORY
    if len(reports) > 1:
        print("Something is lost with a disk: first all that was before the end, then what lasted.")
    for report in reports:
        print(told(report, options.explain))
    return EXIT_GOOD if all(report.is_good for report in reports) else EXIT_FOUND


def told(report: Report, explained_max: int) -> str:
    """The report as text, with so many findings of each pattern explained."""
    operations = report.order.operations
    outcomes = Counter(operation.outcome for operation in operations)
    sessions = len({operation.session for operation in operations})
    lines = [
        f"{len(operations)} operations of {sessions} sessions: {outcomes['ok']} ok, "
        f"{outcomes['not_applied']} not applied, {outcomes['unknown']} unknown."
    ]
    counts = report.counts()
    explainer = Explainer(report) if counts and explained_max > 0 else None
    for pattern in counts if explainer else ():
        findings = [finding for finding in report.findings if finding.pattern == pattern]
        for finding in findings[:explained_max]:
            lines += ["", str(explainer.explain(finding)) if explainer else ""]
    if counts:
        lines += ["", "Found:"]
        lines += (
            f"  {count:6}  {pattern}: {MEANING[pattern]}" for pattern, count in counts.items()
        )
    else:
        lines.append("Nothing found.")
    return "\n".join(lines)


if __name__ == "__main__":
    # Millions of small objects live to the end; to look for garbage among them takes a fifth more.
    gc.disable()
    sys.exit(main())
