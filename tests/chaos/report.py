"""What came of a run, as one page for people.

What it is: `write_report`, which writes a page of HTML that needs nothing but itself.

What it assumes and guarantees: everything in it was observed in the run: no figure is computed from
the plan. Whatever came from outside is escaped.

What it does not know: whether the run was good; the verdicts say that.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from app.vector_clock import node_of
from tests.chaos.chart import Band, Series, curves, rows
from tests.chaos.conduct import Firing
from tests.chaos.evidence import Verdict
from tests.chaos.nemeses import MEANING
from tests.chaos.plan import CLOCKS, NEMESES, NETWORK, PROCESSES
from tests.chaos.run import Result
from tests.chaos.timeline import highest, peaks
from tools import html_page

_PROBLEMS_SHOWN = 20


def write_report(result: Result, path: Path) -> None:
    """The report is in the file. Raises OSError."""
    plan = result.plan
    about = (
        f"{len(plan.nodes)} nodes, {plan.topology} network, seed {plan.seed}; {len(plan.sessions)} "
        f"sessions of clients; Redis {', '.join(f'{n} {v}' for n, v in result.redis.items())}"
    )
    sections = (_charts(result), _nemeses(result), _verdicts(result.verdicts), _settings(result))
    page = html_page.page(
        "Lightcone under chaos",
        about,
        "all good" if result.is_good else "something is wrong",
        result.is_good,
        (html_page.cards(_cards(result)), *sections),
    )
    path.write_text(page, encoding="utf-8")


def _cards(result: Result) -> Iterator[tuple[str, str]]:
    tally, timeline = result.tally, result.timeline
    refused = tally.reads["not_applied"] + tally.writes["not_applied"]
    behind = max(highest(timeline.distances(node)) for node in timeline.nodes)
    fired = sum(firing.fired for firing in result.firings)
    yield f"{tally.reads['ok']:,}", "reads served"
    yield f"{tally.writes['ok']:,}", "writes acknowledged"
    yield f"{refused:,}", "requests refused"
    yield f"{tally.writes['unknown']:,}", "writes in doubt"
    yield f"{tally.deferred:,}", "of these to be done later"
    yield f"{result.lost_writes:,}", "writes lost with a disk"
    yield f"{result.tally.begun_anew:,}", "sessions that had seen those, begun anew"
    yield f"{result.snapshots:,}", "snapshots merged"
    yield f"{fired} of {len(result.firings)}", "strikes fired"
    yield f"{behind:,.0f}", "writes that a node lacked at most"
    yield f"{sum(v.is_good for v in result.verdicts)} of {len(result.verdicts)}", "checks passed"


# --- charts --------------------------------------------------------------------------------------


def _charts(result: Result) -> str:
    timeline = result.timeline
    end_s = timeline.samples[-1].at_s if timeline.samples else 1.0
    bands = [_band(firing) for firing in result.firings]
    kinds = (("processes and Redis", "processes"), ("network", "network"), ("clocks", "clocks"))
    faults = rows([n for n in NEMESES if n not in result.plan.skipped], bands, end_s)
    legend = html_page.key(kinds)
    served = [
        Series("reads served", timeline.rates("reads", "ok"), "c0", filled=True),
        Series("writes acknowledged", timeline.rates("writes", "ok"), "c2", filled=True),
    ]
    failed = [
        Series("reads refused", timeline.rates("reads", "not_applied"), "c0"),
        Series("writes refused", timeline.rates("writes", "not_applied"), "c1"),
        Series("writes in doubt", timeline.rates("writes", "unknown"), "bad"),
    ]
    nodes = list(enumerate(timeline.nodes))
    distance = [Series(node, peaks(timeline.distances(node)), f"c{n}") for n, node in nodes]
    delay = [Series(node, peaks(timeline.delays_s(node)), f"c{n}") for n, node in nodes]
    pending = [
        Series(node, peaks([(s.at_s, s.pending.get(node)) for s in timeline.samples]), f"c{n}")
        for n, node in nodes
    ]
    logged = [
        Series(node, peaks([(s.at_s, s.logged.get(node)) for s in timeline.samples]), f"c{n}")
        for n, node in nodes
    ]
    written = timeline.written()
    clocks = [
        Series(
            node,
            [
                (s.at_s, sum(w[actor] for actor in w if node_of(actor) == node))
                for s, w in zip(timeline.samples, written, strict=True)
            ],
            f"c{n}",
        )
        for n, node in nodes
    ]
    return "".join(
        (
            _section(
                "Faults",
                "Each bar is one strike, from the moment it struck until it was seen "
                "to be healed. They are the bands behind the curves below.",
                legend,
                faults,
            ),
            _panel("Served", "Requests a second that were served.", served, bands, end_s, 190),
            _panel(
                "Refused, and in doubt",
                "Requests a second that ended otherwise.",
                failed,
                bands,
                end_s,
                140,
            ),
            _panel(
                "How far behind",
                "Writes that each node had not applied yet, of all that any "
                "node had. A gap: it did not answer.",
                distance,
                bands,
                end_s,
                170,
            ),
            _panel(
                "For how long",
                "Seconds since the node last had everything that was written by then.",
                delay,
                bands,
                end_s,
                150,
            ),
            _panel(
                "Waiting", "Writes in the pending buffer of each node.", pending, bands, end_s, 130
            ),
            _panel(
                "Logs",
                "Writes in all logs of each node. What every node has is trimmed, and more than "
                "the cap in any case.",
                logged,
                bands,
                end_s,
                130,
            ),
            _panel(
                "Clocks",
                "Writes of each node under all its names, as far as any node had applied them. Not "
                "those that were lost with a disk.",
                clocks,
                bands,
                end_s,
                150,
            ),
        )
    )


def _panel(
    title: str,
    about: str,
    series: Sequence[Series],
    bands: Sequence[Band],
    end_s: float,
    height: int,
) -> str:
    legend = html_page.key((one.name, one.colour) for one in series)
    return _section(title, about, legend, curves(series, bands, end_s, height))


def _section(title: str, about: str, legend: str, body: str) -> str:
    return html_page.heading(title, about) + f'<p class="keys">{legend}</p>{body}'


def _band(firing: Firing) -> Band:
    nemesis = firing.strike.nemesis
    kinds = {"processes": PROCESSES, "network": NETWORK, "clocks": CLOCKS}
    kind = next(kind for kind, names in kinds.items() if nemesis in names)
    text = f"{firing.strike}: {firing.proof or firing.problem}"
    return Band(firing.began_s, firing.ended_s, kind, nemesis, text, firing.fired)


# --- tables --------------------------------------------------------------------------------------


def _nemeses(result: Result) -> str:
    of: dict[str, list[Firing]] = defaultdict(list)
    for firing in result.firings:
        of[firing.strike.nemesis].append(firing)
    lines = []
    for nemesis in NEMESES:
        fired = [firing for firing in of[nemesis] if firing.fired]
        proof = fired[-1].proof if fired else "never seen to work"
        if reason := result.plan.skipped.get(nemesis):
            proof = f"left out: {reason}"
        count = f"{len(fired)} of {len(of[nemesis])}"
        lines.append(
            (
                html_page.name(nemesis),
                escape(MEANING[nemesis]),
                html_page.number(count),
                escape(proof),
            )
        )
    every = (
        (
            html_page.number(f"{firing.began_s:.1f} s"),
            html_page.name(str(firing.strike)),
            html_page.number(f"{firing.ended_s - firing.began_s:.1f} s"),
            escape(firing.proof) + _bad(firing.problem),
        )
        for firing in result.firings
    )
    return (
        html_page.heading(
            "Nemeses",
            "A strike counts only when it was seen to work. The proof is what was seen, here of "
            "the last one.",
        )
        + html_page.table(("nemesis", "what it does", "fired", "proof"), lines)
        + f"<details><summary>All {len(result.firings)} strikes</summary>"
        + html_page.table(("at", "strike", "lasted", "proof"), every)
        + "</details>"
    )


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    lines = []
    for verdict in verdicts:
        shown = "".join(f"<pre>{escape(p)}</pre>" for p in verdict.problems[:_PROBLEMS_SHOWN])
        more = len(verdict.problems) - _PROBLEMS_SHOWN
        rest = f"<p>and {more} more</p>" if more > 0 else ""
        lines.append(
            (
                html_page.verdict("good" if verdict.is_good else "bad", verdict.is_good),
                html_page.name(verdict.name),
                escape(verdict.looked_at) + shown + rest,
            )
        )
    return html_page.heading("Checks at the end", "After everything was healed.") + html_page.table(
        ("", "what must be so", "what it rests on"), lines
    )


def _settings(result: Result) -> str:
    plan = result.plan
    shown: Mapping[str, str] = {
        "seed": str(plan.seed),
        "nodes": " ".join(plan.nodes),
        "topology": plan.topology,
        "slow wires": _wires({w: f"{ms:g} ms" for w, ms in plan.delays_ms.items()}),
        "severed wires": _wires(dict.fromkeys(plan.severed, "")),
        "small disk": plan.small_disk or "none",
        "odd clock": plan.odd_clock or "none",
        "took": f"{result.took_s:.0f} s",
        **plan.settings,
    }
    refusals = ", ".join(f"{count} {kind}" for kind, count in result.tally.refusals.most_common())
    return (
        html_page.heading("Settings", "")
        + html_page.settings(shown.items())
        + '<p class="soft">What clients were told when they were not served: '
        + f"{escape(refusals)}.</p>"
    )


def _bad(text: str) -> str:
    return f' <span class="is-bad">{escape(text)}</span>' if text else ""


def _wires(wires: Mapping[tuple[str, str], str]) -> str:
    return ", ".join(f"{a}>{b} {more}".strip() for (a, b), more in wires.items()) or "none"
