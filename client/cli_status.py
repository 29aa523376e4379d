"""How the status of nodes is shown: a table of nodes, and one of the links between them.

What it assumes and guarantees: pure; what needs attention has a colour and words, never a colour
alone. What it does not know: how the nodes were asked.
"""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from client.cli_output import clean, clock, duration, row, size, table
from client.errors import LightconeError
from client.shapes import PeerStatus, Status

#: A wall clock that is wrong by more deserves a look: ties between writes follow it.
SKEW_MS = 500


def shown(answers: dict[str, Status | LightconeError]) -> Group:
    """The answers of all nodes, by their URL."""
    nodes = table(
        "node", "address", "actor", "clock", "pending#", "deferred#", "log", "state", title="Nodes"
    )
    links = table("link", "state", "lag#", "behind by#", "skew#", "heard#", "", title="Links")
    for url, answer in answers.items():
        if isinstance(answer, LightconeError):
            row(nodes, "?", url, "", "", "", "", "", Text(clean(str(answer)), style="red"))
            continue
        row(
            nodes,
            Text(clean(answer["node"]), style="bold"),
            url,
            answer["actor"] or "not settled",
            clock(answer["clock"]),
            _warn(str(answer["pending"]["total"]), answer["pending"]["total"] > 0),
            _warn(str(answer["deferred"]["total"]), answer["deferred"]["total"] > 0),
            _log(answer),
            _state(answer),
        )
        for peer, seen in sorted(answer["peers"].items()):
            _add_link(links, f"{answer['node']} → {peer}", seen)
    parts: list[RenderableType] = [nodes]
    if links.row_count:
        parts += [Text(""), links]
    return Group(*parts)


def _add_link(links: Table, name: str, seen: PeerStatus) -> None:
    lag, skew = seen["lag_writes"], seen["skew_ms"]
    row(
        links,
        name,
        Text("ok", style="green") if seen["reachable"] else Text("unreachable", style="red"),
        _warn("-" if lag is None else f"{lag}", bool(lag)),
        duration(seen["lag_s"]) if lag else "-",
        _warn("-" if skew is None else f"{skew:+.1f} ms", skew is not None and abs(skew) > SKEW_MS),
        duration(seen["last_contact_s"]),
        _remarks(seen),
    )


def _remarks(seen: PeerStatus) -> Text:
    """What else is to be said of a link: its error, its fault, the snapshot on its way."""
    is_cut = seen["faults"] is not None and seen["faults"].get("cut", False)
    # A link that is cut has an error that says just this.
    said = [seen["error"]] if seen["error"] and not is_cut else []
    if seen["faults"]:
        faults = ", ".join(
            name if value is True else f"{name} {value}"
            for name, value in seen["faults"].items()
            if value
        )
        said.append(f"fault: {faults}")
    if seen["snapshot"]:
        snapshot = seen["snapshot"]
        said.append(f"sending a snapshot, {snapshot['sent_keys']} of {snapshot['total_keys']} keys")
    return Text(clean("; ".join(said)), style="yellow")


def _log(status: Status) -> str:
    log = status["log"]
    held = ", ".join(f"{one['peer']} ({one['writes']})" for one in log["held_back_by"])
    return f"{log['entries']}, {size(log['bytes'])}" + (f"\nheld back by {held}" if held else "")


def _state(status: Status) -> Text:
    received = status["snapshot"]
    if received is not None:
        count = received["merged_keys" if received["phase"] == "merging" else "received_keys"]
        return Text(
            clean(
                f"{received['phase']} a snapshot from {received['from']}, "
                f"{count} of {received['total_keys']} keys"
            ),
            style="yellow",
        )
    if status["incarnation"] is not None:
        return Text(clean(f"ok, another incarnation: {status['incarnation']['reason']}"))
    return Text("ok", style="green")


def _warn(text: str, is_unusual: bool) -> Text:
    return Text(text, style="yellow" if is_unusual else "")
