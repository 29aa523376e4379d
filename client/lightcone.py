"""The client: the first session, and the connections that all sessions use.

What it is: `Lightcone`.

What it assumes and guarantees: nodes are listed nearest first. Connections are there within its
block, and none is left after it. What it guarantees to readers and writers, `Session` says.

What it does not know: what sessions do with the connections.

Where the idea is from: httpx, for the shape.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from client.context import Context
from client.failover import Route
from client.nodes import Resting, node_urls
from client.recorder import Recorder
from client.session import Session
from client.transport import Transport

#: A request is given up after this, over all its tries.
TIMEOUT_S = 10.0
#: A node may make a request wait this long until it has seen what the session has seen.
PATIENCE_S = 1.0


class Lightcone(Session):
    """A session, and the connections that it and all sessions made from it use.

    async with Lightcone(["http://127.0.0.1:8001", "http://127.0.0.1:8002"]) as kv:
        await kv.put("lunch", "noon?")
        version = await kv.get("lunch")

    Nodes are listed nearest first. A request ends `timeout_s` seconds after it was made, over all
    its tries; `patience_s` of them, at most, it waits for a node to see what the session has seen.
    One session is one reader and writer: give every user of yours a `session()`.
    With `record`, all that the sessions do is written to this file, as a history for checkers of
    consistency, in the form that `client/recorder.py` explains; a file that is there is replaced.
    Raises BadInput for what is not a list of addresses, and OSError if there is no such file to be.
    """

    def __init__(
        self,
        nodes: Sequence[str],
        *,
        context: str = "",
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        record: str | Path | None = None,
    ) -> None:
        recorder = Recorder(record)
        self._transport = Transport()
        super().__init__(
            Route(node_urls(nodes), self._transport, Resting()),
            Context(context),
            recorder,
            recorder.name(""),
            timeout_s=timeout_s,
            patience_s=patience_s,
        )

    async def __aenter__(self) -> Self:
        self._transport.open()
        try:
            self._recorder.open()
        except OSError:
            await self._transport.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._transport.close()
        self._recorder.close()
