"""The commands about who belongs to the cluster: members list, add, remove.

What it assumes and guarantees: a change is an ordinary write of the session, made at one node. What
it does not know: what follows from a change.
"""

from typing import Annotated

import typer
from rich.text import Text

from client.cli_command import Call
from client.cli_output import Result, clean, row, table
from client.nodes import node_url

Id = Annotated[str, typer.Argument(metavar="ID", help="The id of the node.", show_default=False)]


async def list_members(call: Call) -> Result:
    """List the nodes of the cluster, as one of them knows them."""
    members = await call.kv.members()
    made = table("node", "address", "known by", "state")
    for one in members:
        if one["state"] != "member":
            state = Text(clean(one["state"]), style="dim")
        elif one["reachable"]:
            state = Text("ok", style="green")
        else:
            state = Text("unreachable", style="red")
        row(made, one["id"], one["url"] or "-", one["source"], state)
    return Result({"members": list(members), "context": call.kv.context}, made)


async def add(
    call: Call,
    member: Id,
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="Where the others reach it.", show_default=False),
    ],
) -> Result:
    """Make a node a member of the cluster, or say where it is reached from now on.

    A node that was removed is taken back in the same way.
    """
    added = await call.kv.add_member(member, node_url(url))
    shown = f"{added['id']} is a member, at {added['url'] or 'an address of its own'}."
    return Result({"member": added, "context": call.kv.context}, Text(clean(shown)))


async def remove(call: Call, member: Id) -> Result:
    """Take a node out of the cluster.

    It then refuses its clients, and hands on what the others still lack.
    """
    await call.kv.remove_member(member)
    document = {"removed": member, "context": call.kv.context}
    return Result(document, Text(clean(f"{member} is no member any more.")))
