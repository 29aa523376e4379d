"""Who asks nodes, and keeps what the answers showed.

What it is: `Asking`, which every session is: whom it asks, what it has seen, and one way to ask.

What it assumes and guarantees: a request that has part in a session is sent with what the session
has seen, and what its answer shows is seen then (`Route` keeps to that). The recorder is told of
each, whatever becomes of it.

What it does not know: what can be asked.

Where the idea is from: the sessions of Bayou (Terry et al. 1994).
"""

from typing import TypeVar

from client import checks
from client.context import Context
from client.failover import Route
from client.nodes import node_urls
from client.recorder import Recorder
from client.transport import Request

Result = TypeVar("Result")


class Asking:
    """Somebody who asks nodes, and has seen what they answered."""

    def __init__(
        self,
        route: Route,
        context: Context,
        recorder: Recorder,
        name: str,
        *,
        timeout_s: float,
        patience_s: float,
    ) -> None:
        self._route = route
        self._context = context
        self._recorder = recorder
        self._name = name
        self._timeout_s = checks.timeout(timeout_s)
        self._patience_s = checks.patience(patience_s)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The addresses of the nodes that serve this session, nearest first."""
        return self._route.nodes

    @property
    def context(self) -> str:
        """What the session has seen, to be handed to `session(context=...)`, here or elsewhere."""
        return str(self._context)

    @property
    def name(self) -> str:
        """What the session is called where its operations are recorded."""
        return self._name

    def _route_to(self, *nodes: str) -> Route:
        """The route to the nodes at these addresses. Raises BadInput for what is no address."""
        return self._route.among(node_urls(nodes))

    async def _ask(
        self,
        request: Request[Result],
        patience_s: float | None = None,
        *,
        route: Route | None = None,
    ) -> Result:
        """What the answer says, of a node of this route, or else of one of the session."""
        route = route or self._route
        patience_s = self._patience_s if patience_s is None else checks.patience(patience_s)
        with self._recorder.operation(request, self._name, self._context, route.nodes) as served:
            answer, result = await route.ask(
                request, self._context, timeout_s=self._timeout_s, patience_s=patience_s
            )
            served.by(answer.node, result)
            return result
