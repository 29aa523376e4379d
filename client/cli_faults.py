"""The commands that break links on purpose, and heal them: fault set, fault heal.

What it assumes and guarantees: a node is named by its id, which the nodes are asked for, or by its
address. A node whose links could not be healed is named, too. What it does not know: what a fault
does.
"""

from typing import Annotated

import typer
from rich.text import Text

from client.cli_command import Call
from client.cli_errors import Code
from client.cli_nodes import each
from client.cli_output import Result, clean
from client.errors import BadInput, LightconeError
from client.nodes import node_url
from client.shapes import Fault

From = Annotated[
    str, typer.Argument(metavar="FROM", help="The node that sends: its id or its address.")
]
To = Annotated[str, typer.Argument(metavar="TO", help="The id of the peer that it sends to.")]


async def set_fault(
    call: Call,
    sender: From,
    peer: To,
    delay_ms: Annotated[
        int, typer.Option(min=0, max=600_000, metavar="MS", help="Batches go out so much later.")
    ] = 0,
    jitter_ms: Annotated[
        int, typer.Option(min=0, max=600_000, metavar="MS", help="And up to so much later still.")
    ] = 0,
    drop: Annotated[
        float, typer.Option(min=0, max=1, metavar="P", help="Probability that one is lost.")
    ] = 0.0,
    duplicate: Annotated[
        float, typer.Option(min=0, max=1, metavar="P", help="Probability that one comes twice.")
    ] = 0.0,
    reorder: Annotated[
        float, typer.Option(min=0, max=1, metavar="P", help="Probability that one is overtaken.")
    ] = 0.0,
    cut: Annotated[bool, typer.Option("--cut", help="Nothing passes.")] = False,
    no_relay: Annotated[
        bool, typer.Option("--no-relay", help="Only the sender's own writes pass.")
    ] = False,
) -> Result:
    """Break the link from one node to another, in place of any fault that it has.

    Only where the nodes run with FAULTS=1, as those of make run do.
    """
    wanted: Fault = {
        **{"delay_ms": delay_ms, "jitter_ms": jitter_ms, "drop": drop, "duplicate": duplicate},
        **{"reorder": reorder, "cut": cut, "no_relay": no_relay},
    }
    if not any(wanted.values()):
        raise BadInput("Say what is wrong with the link, such as --cut. Nothing was changed.")
    node = await _address(call, sender)
    fault = await call.kv.set_fault(node, peer, **wanted)
    faults = ", ".join(n if v is True else f"{n} {v}" for n, v in fault.items() if v)
    document = {"node": node, "peer": peer, "fault": fault}
    return Result(document, Text(clean(f"The link from {sender} to {peer} has: {faults}")))


async def heal(
    call: Call,
    sender: Annotated[
        str | None, typer.Argument(metavar="FROM", help="The node that sends: its id or address.")
    ] = None,
    peer: Annotated[
        str | None, typer.Argument(metavar="TO", help="The id of the peer that it sends to.")
    ] = None,
    all_links: Annotated[bool, typer.Option("--all", help="All links of all nodes.")] = False,
) -> Result:
    """Heal the link from one node to another, or all of them.

    Ends with 3 if one of all nodes does not answer: what faults there are stay there.
    """
    if all_links == (sender is not None) or (sender is None) != (peer is None):
        raise BadInput("Give FROM and TO, or --all. Nothing was changed.")
    unanswered: list[str] = []
    if sender is not None and peer is not None:
        links = [(sender, await _address(call, sender), peer)]
    else:
        answers = await each(call, call.kv.status)
        unanswered = [url for url, one in answers.items() if isinstance(one, LightconeError)]
        links = [
            (status["node"], url, peer)
            for url, status in answers.items()
            if not isinstance(status, LightconeError)
            for peer, seen in status["peers"].items()
            if seen["faults"]
        ]
    for _, url, peer in links:
        await call.kv.heal(url, peer)
    document = {
        "healed": [{"node": url, "peer": peer} for _, url, peer in links],
        "unanswered": unanswered,
    }
    healed = "\n".join(f"The link from {name} to {peer} is healthy." for name, _, peer in links)
    shown = Text(clean(healed, keep="\n")) if links else None
    if unanswered:
        note = f"No answer from {', '.join(unanswered)}: what faults there are stay there."
        return Result(document, shown, note, Code.NOT_APPLIED)
    return Result(document, shown, "" if links else "No link had a fault.")


async def _address(call: Call, name: str) -> str:
    """The address of the node of this id, or the address itself. Raises BadInput."""
    if "://" in name:
        return node_url(name)
    answers = await each(call, call.kv.status)
    found = {
        status["node"]: url
        for url, status in answers.items()
        if not isinstance(status, LightconeError)
    }
    if name not in found:
        raise BadInput(
            f"No node of this id answers: {name!r}. Those that do are {', '.join(sorted(found))}. "
            "Nothing was changed."
        )
    return found[name]
