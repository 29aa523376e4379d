"""A fakeredis server that compiles each Lua script once.

What it is: `compile_once`, which makes a server so.

What it assumes and guarantees: scripts do the same as without. fakeredis compiles a script at every
call, collects garbage after it, and looks for new globals at every command in it, which takes most
of the time where there are many. The scripts' own tests do all that.

What it does not know: the scripts.
"""

from typing import Any

from fakeredis import FakeRedis, FakeServer


def compile_once(server: FakeServer) -> None:
    """From now on the server compiles each script at its first call only."""
    with FakeRedis(server=server) as redis:
        redis.eval("return 1", 0)  # that makes the runtime
    inside: Any = server
    inside._lua_runtime = _Compiled(inside._lua_runtime, inside._lua_expected_globals)


class _Compiled:
    """The Lua runtime of a server, with each script compiled once."""

    def __init__(self, runtime: Any, expected_globals: set[Any]) -> None:
        self._runtime = runtime
        self._compiled: dict[bytes, Any] = {}
        self._globals = dict.fromkeys(expected_globals)
        self.table_from = runtime.table_from

    def globals(self) -> dict[Any, None]:
        return self._globals

    def execute(self, script: bytes | str) -> Any:
        if isinstance(script, str):
            return None  # collectgarbage()
        if script not in self._compiled:
            self._compiled[script] = self._runtime.compile(script)
        return self._compiled[script]()
