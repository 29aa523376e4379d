"""`python -m app.local_cluster`: several nodes on this machine, from the command line.

What it is: for people (`make run`), who are told what to try, and with `--json` for programs that
are not written in Python: a line of JSON out for each command in.

What it assumes and guarantees: whatever way it ends, no node of it is left (`LocalCluster`). A
command of a program is answered when it is done, or with the reason why it cannot be.

What it does not know: how nodes are started, stopped and killed.

Where the idea is from: etcd's Procfile and Redis' create-cluster, the one-command clusters for
trying things out.
"""

import argparse
import asyncio
import contextlib
import json
import os
import string
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from app.config import Config
from app.errors import StartupError
from app.local_nodes import OWN_SETTINGS, LocalCluster
from app.server import EXIT_CANNOT_START, on_stop
from app.settings_text import is_setting

FIRST_PORT = 8001


async def _serve_people(cluster: LocalCluster) -> None:
    async def tell_when_ended(node: str) -> None:
        code = await cluster.wait(node)
        print(f"Node {node} has ended with code {code}.", file=sys.stderr)

    async with cluster:
        print(_what_to_try(cluster), flush=True)
        await asyncio.gather(*map(tell_when_ended, cluster.names))


def _what_to_try(cluster: LocalCluster) -> str:
    urls = list(cluster.urls.values())
    first, second, third = urls[0], urls[1 % len(urls)], urls[2 % len(urls)]
    return f"""
Ready: {"  ".join(f"{name} {url}" for name, url in cluster.urls.items())}
Data:  {cluster.data_dir}

Try, in another terminal: write at one node and keep the causal context of the answer, read at
another with that context, and see what a third has seen.

  CTX=$(curl -si -X PUT {first}/kv/lunch -d 'noon?' | grep -i ^causal | tr -d '\\r')
  curl -i {second}/kv/lunch -H "$CTX"
  curl {third}/status {third}/pending

Ctrl-C stops all nodes.
"""


async def _serve_program(cluster: LocalCluster) -> None:
    asked_to_quit = False
    async with cluster:
        nodes = {name: {"url": url, "pid": cluster.pid(name)} for name, url in cluster.urls.items()}
        _answer({"nodes": nodes})
        async for line in _lines_of_standard_input():
            if asked_to_quit := line.split() == ["quit"]:
                break
            _answer(await _obey(cluster, *line.partition(" ")[::2]))
    if asked_to_quit:
        _answer({"ok": True})


def _answer(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


async def _obey(cluster: LocalCluster, verb: str, node: str) -> dict[str, object]:
    verbs = {"start": cluster.start, "stop": cluster.stop, "kill": cluster.kill}
    verb, node = verb.strip(), node.strip()
    if verb not in verbs:
        return {"ok": False, "error": f"`{verb}` is none of {', '.join(verbs)}, quit."}
    if node not in cluster.names:
        return {"ok": False, "error": f"`{node}` is none of {', '.join(cluster.names)}."}
    try:
        await verbs[verb](node)
    except StartupError as error:
        return {"ok": False, "node": node, "error": str(error)}
    return {"ok": True, "node": node}


async def _lines_of_standard_input() -> AsyncIterator[str]:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    except (PermissionError, ValueError):  # a file, or /dev/null: reading it does not wait
        reader.feed_data(sys.stdin.buffer.read())
        reader.feed_eof()
    while line := await reader.readline():
        yield line.decode(errors="replace")


def main(arguments: list[str] | None = None) -> int:
    """The cluster has run and has ended; the result is the exit code."""
    options = _parser().parse_args(arguments)
    base = options.ports
    try:
        cluster = LocalCluster(
            options.data_dir,
            nodes=options.nodes,
            ports=None if base is None else range(base, base + options.nodes),
            env=dict(options.env),
            show_logs=not options.json,
        )
        return asyncio.run(_run(cluster, machine=options.json))
    except StartupError as error:
        print(error, file=sys.stderr)
        return EXIT_CANNOT_START


async def _run(cluster: LocalCluster, *, machine: bool) -> int:
    work = asyncio.current_task()
    assert work is not None

    def kill() -> None:
        cluster.kill_all()
        os._exit(1)

    on_stop(work.cancel, kill)
    with contextlib.suppress(asyncio.CancelledError):
        await (_serve_program(cluster) if machine else _serve_people(cluster))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app.local_cluster",
        description="Start several nodes on this machine, and stop them all at the end.",
        allow_abbrev=False,
    )
    parser.add_argument("--nodes", type=_node_count, default=3, help="how many (3)")
    parser.add_argument(
        "--ports",
        type=_first_port,
        default=FIRST_PORT,
        help=f"the first of as many ports as nodes ({FIRST_PORT}), or `auto`",
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where data is (data)")
    parser.add_argument(
        "--env",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting for every node; may be repeated",
    )
    parser.add_argument(
        "--json", action="store_true", help="for programs: JSON lines out, commands in"
    )
    return parser


def _node_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= len(string.ascii_uppercase):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 26")
    return int(text)


def _first_port(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 65500:
        raise argparse.ArgumentTypeError(f"{text} is neither `auto` nor a port")
    return int(text)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not is_setting(name, Config):
        raise argparse.ArgumentTypeError(f"{name} is no setting, or has no value: see --settings")
    if name.upper() in OWN_SETTINGS:
        raise argparse.ArgumentTypeError(f"{name} differs from node to node, so it is set for you")
    return name.upper(), value


if __name__ == "__main__":
    sys.exit(main())
