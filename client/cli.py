"""The command line: all commands, under their names.

What it is: `made`, the application, as typer runs it. What it assumes and guarantees: each command
has a help, and the options of its kind. What it does not know: what any command does.
"""

from typing import Annotated

import typer

from client import __version__
from client.cli_backup import backup, restore
from client.cli_command import command, flowing
from client.cli_explain import conflicts, explain
from client.cli_faults import heal, set_fault
from client.cli_keys import delete, get, ls, put
from client.cli_load import load
from client.cli_lost import declare_lost
from client.cli_members import add, list_members, remove
from client.cli_nodes import pending, ready, status
from client.cli_txn import txn
from client.cli_watch import watch

HELP = """Read and write a Lightcone cluster, and look into it.

Nodes are given nearest first, with --node or LIGHTCONE_NODES; a request goes on to the next one
when one cannot serve it. With --session NAME a command sees all that earlier commands of this
session have seen and written, at whichever node.
"""

CODES = """Exit codes:
 0  done
 1  the answer is no (get: the key has no value; ready: not ready)
 2  bad input
 3  not applied; safe to repeat
 4  outcome unknown; read before you repeat
 5  a condition does not hold
 6  done, but fewer nodes than asked for are known to hold it; do not repeat
 7  a file of this machine cannot be used
 70 a mistake of ours
 130 interrupted
 141 whoever read the output closed it
"""

_VALUES, _NODES, _CONFLICTS, _BACKUPS = "Keys and values", "Nodes", "Conflicts", "Backups"


def made(*, completion: bool) -> typer.Typer:
    """The application, with the options that install shell completion or without."""
    app = typer.Typer(
        help=flowing(HELP),
        epilog=CODES,
        no_args_is_help=True,
        add_completion=completion,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_everywhere)
    app.command("get", rich_help_panel=_VALUES)(command(get))
    app.command("put", rich_help_panel=_VALUES)(command(put, writes=True))
    app.command("del", rich_help_panel=_VALUES)(command(delete, writes=True))
    app.command("ls", rich_help_panel=_VALUES)(command(ls))
    app.command("txn", rich_help_panel=_VALUES)(command(txn, writes=True))
    app.command("load", rich_help_panel=_VALUES)(command(load, writes=True))
    app.command("watch", rich_help_panel=_VALUES)(command(watch, in_lines=True))
    app.command("conflicts", rich_help_panel=_CONFLICTS)(command(conflicts))
    app.command("explain", rich_help_panel=_CONFLICTS)(command(explain))
    app.command("status", rich_help_panel=_NODES)(command(status, in_session=False))
    app.command("pending", rich_help_panel=_NODES)(command(pending, in_session=False))
    app.command("ready", rich_help_panel=_NODES)(command(ready, in_session=False))
    app.command("declare-lost", rich_help_panel=_NODES)(
        command(declare_lost, in_session=False, writes=True)
    )
    app.add_typer(_members(), name="members", rich_help_panel=_NODES)
    app.add_typer(_faults(), name="fault", rich_help_panel=_NODES)
    app.command("backup", rich_help_panel=_BACKUPS)(
        command(backup, in_session=False, is_timed=False)
    )
    app.command("restore", rich_help_panel=_BACKUPS)(
        command(restore, in_session=False, writes=True, is_timed=False)
    )
    return app


def _members() -> typer.Typer:
    members = typer.Typer(
        help="List, add and remove the nodes of the cluster.", no_args_is_help=True
    )
    members.command("list")(command(list_members))
    members.command("add")(command(add, writes=True))
    members.command("remove")(command(remove, writes=True))
    return members


def _faults() -> typer.Typer:
    faults = typer.Typer(
        help="Break links between nodes, for demonstrations and tests.", no_args_is_help=True
    )
    faults.command("set")(command(set_fault, in_session=False, writes=True))
    faults.command("heal")(command(heal, in_session=False, writes=True))
    return faults


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"lightcone {__version__}")
        raise typer.Exit()


def _everywhere(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version, and end."
        ),
    ] = False,
) -> None:
    pass
