"""A coroutine made into a command: with the options that all have, and an end that is always told.

What it is: `command`, which gives a coroutine the options that its kind of command has, and calls
it with a `Call`: the open client and the screen.

What it assumes and guarantees: the coroutine returns its `Result` or raises an error of the client;
then the session is kept first, and the result shown after it. Whatever happens, the process ends
with a `Code`, and never with a traceback (but with LIGHTCONE_DEBUG=1). Who ends it, or closes its
terminal, interrupts it as Ctrl-C does: nothing half done is left behind, and what became of a write
is said.

What it does not know: what the commands do.

Where the idea is from: typer reads signatures, so a signature put together here is one place for
options that would else be written out in every command.
"""

import asyncio
import inspect
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from client.cli_errors import Code, LocalTrouble, interrupted, told, unexpected
from client.cli_output import Result, Screen
from client.cli_session import SessionFile, named
from client.cli_threads import Unawaited
from client.errors import BadInput, LightconeError
from client.lightcone import Lightcone

#: Those of `make run`.
NODES = ["http://127.0.0.1:8001", "http://127.0.0.1:8002", "http://127.0.0.1:8003"]
#: People wait less gladly than programs.
TIMEOUT_S = 5.0
PATIENCE_S = 1.0
#: A node that is asked about itself has no reason to be slow.
NODE_TIMEOUT_S = 3.0

_NODES_PANEL = "Nodes and output"
_SESSION_PANEL = "Session"

Node = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        envvar="LIGHTCONE_NODES",
        help="A node, nearest first; may be repeated. In the variable they are separated by "
        "commas or spaces.",
        show_default="http://127.0.0.1:8001, 8002 and 8003",
        rich_help_panel=_NODES_PANEL,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=_NODES_PANEL)
]
Timeout = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="Give up after this, over all tries and nodes.",
        rich_help_panel=_NODES_PANEL,
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="How long a node may wait until it has seen what the session has seen.",
        rich_help_panel=_SESSION_PANEL,
    ),
]
SessionName = Annotated[
    str | None,
    typer.Option(
        "--session",
        metavar="NAME",
        envvar="LIGHTCONE_SESSION",
        help="Go on with the session of this name: what it has seen is kept from command to "
        "command.",
        rich_help_panel=_SESSION_PANEL,
    ),
]
SessionPath = Annotated[
    Path | None,
    typer.Option(
        "--session-file",
        metavar="FILE",
        help="Go on with the session in this file.",
        rich_help_panel=_SESSION_PANEL,
    ),
]


@dataclass(frozen=True, slots=True)
class Call:
    """What a command is given beside its own arguments."""

    kv: Lightcone
    screen: Screen


@dataclass(frozen=True, slots=True)
class _Options:
    """The options that are not the command's own."""

    node: list[str] | None = None
    as_json: bool = False
    timeout: float = TIMEOUT_S
    wait: float = PATIENCE_S
    session: str | None = None
    session_file: Path | None = None

    @property
    def nodes(self) -> list[str]:
        given = [url for text in self.node or () for url in text.replace(",", " ").split()]
        # `A=http://...` is how the nodes themselves are told of each other.
        return [url.partition("=")[2] if "=" in url.partition("://")[0] else url for url in given]

    @property
    def is_of_two_sessions(self) -> bool:
        # The variable is for commands that say nothing else.
        is_said = self.session not in (None, os.environ.get("LIGHTCONE_SESSION"))
        return is_said and self.session_file is not None

    def file(self) -> SessionFile | None:
        if self.session_file is not None:
            return SessionFile(self.session_file)
        return None if self.session is None else SessionFile(named(self.session))


def command(
    run: Callable[..., Awaitable[Result]],
    *,
    in_session: bool = True,
    writes: bool = False,
    is_timed: bool = True,
    in_lines: bool = False,
) -> Callable[..., None]:
    """What typer is to call for this command.

    `in_session` says that it has part in a session, `writes` that what became of it is unknown when
    it is interrupted, `in_lines` that each of its documents is a line; without `is_timed` it takes
    as long as it takes.
    """
    own = list(inspect.signature(run).parameters.values())[1:]
    shared: list[tuple[str, Any, Any]] = [("node", Node, None), ("as_json", AsJson, False)]
    if is_timed:
        shared.append(("timeout", Timeout, TIMEOUT_S if in_session else NODE_TIMEOUT_S))
    if in_session:
        shared += [("session", SessionName, None), ("session_file", SessionPath, None)]
        shared.append(("wait", Wait, PATIENCE_S))
    parameters = [*(one.replace(kind=one.KEYWORD_ONLY) for one in own)] + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, kind, default in shared
    ]

    def called(**given: Any) -> None:
        options = _Options(**{name: given.pop(name) for name, _, _ in shared})
        screen = Screen(as_json=options.as_json, in_lines=in_lines)
        raise typer.Exit(_end(run, options, given, screen, writes=writes))

    called.__name__, called.__doc__ = run.__name__, flowing(inspect.getdoc(run) or "")
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


def flowing(text: str) -> str:
    """The text with its paragraphs on one line each, as typer wants them."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _end(
    run: Callable[..., Awaitable[Result]],
    options: _Options,
    own: dict[str, Any],
    screen: Screen,
    *,
    writes: bool,
) -> Code:
    """The command has run, and has been told of. Returns the code to end with."""
    result: Result | None = None
    try:
        result, trouble = asyncio.run(_carry_out(run, options, own, screen))
        code = screen.show(result)
        # The request is done whatever became of its session file.
        return code if trouble is None else screen.fail(told(trouble), with_document=False)
    except (LightconeError, LocalTrouble) as error:
        return screen.fail(told(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        # What only looks has nothing to tell of its end.
        return screen.fail(interrupted()) if writes else Code.INTERRUPTED
    except Exception as error:
        # What only looks may tell of it as it goes on.
        if isinstance(error, OSError) and not (writes and result is None):
            return unwritten(error, screen, "applied")
        if os.environ.get("LIGHTCONE_DEBUG"):
            raise
        return screen.fail(unexpected(error, writes=writes))


def unwritten(error: OSError, screen: Screen, outcome: str) -> Code:
    """The output cannot be written, and that has been told. Returns the code to end with."""
    # Nothing more can be said there, not even by Python as it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return Code.CLOSED
    trouble = LocalTrouble(f"The output cannot be written: {error.strerror}.", outcome)
    return screen.fail(told(trouble), with_document=False)


async def _carry_out(
    run: Callable[..., Awaitable[Result]], options: _Options, own: dict[str, Any], screen: Screen
) -> tuple[Result, LocalTrouble | None]:
    """The result, and what hindered the session from being kept."""
    _be_interruptible()
    # It is there that names are looked up, which may take longer than the command wants to.
    asyncio.get_running_loop().set_default_executor(Unawaited())
    if options.is_of_two_sessions:
        raise BadInput("Give --session or --session-file, not both. Nothing was sent.")
    file = options.file()
    async with Lightcone(
        options.nodes if options.node else NODES,
        context="" if file is None else file.context,
        timeout_s=options.timeout,
        patience_s=options.wait,
    ) as kv:
        try:
            result = await run(Call(kv, screen), **own)
        except BaseException:  # also an interruption: what has been seen until then is kept
            # What ends the command is told, with its code; this is told before it.
            if (trouble := _kept(file, kv)) is not None:
                screen.note(str(trouble))
            raise
        return result, _kept(file, kv)


def _kept(file: SessionFile | None, kv: Lightcone) -> LocalTrouble | None:
    """What hindered the session from being kept."""
    try:
        if file is not None:
            file.keep(kv.context)
    except LocalTrouble as trouble:
        return trouble
    return None


def _be_interruptible() -> None:
    """Who ends the process cancels this task, as asyncio has a Ctrl-C do."""
    if threading.current_thread() is not threading.main_thread():
        return  # signals are of the other one
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # not what nohup has it ignore
            loop.add_signal_handler(number, task.cancel)
