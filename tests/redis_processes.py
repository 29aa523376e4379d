"""A redis-server of a test's own, which it may harm as it likes, as REDIS_URL of a whole node.

What it is: `RedisProcess`, one redis-server on a TCP port and in a directory; `NodesWithRedis`, a
local cluster some of whose nodes stand before one that is not theirs to start.

What it assumes and guarantees: it keeps what it is given as the guarantees ask for, and is started
again on the same port and the same data.

What it does not know: nodes, and what is kept in it.
"""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis import Redis as BlockingRedis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from app.local_nodes import HOST, LocalCluster, free_ports
from app.redis_program import find_redis_server
from tests.processes import WHOLE_LOGS


class RedisProcess:
    """One redis-server, or with `sentinel` one of those that watch over others."""

    def __init__(
        self, directory: Path, *settings: str, sentinel: bool = False, password: str | None = None
    ) -> None:
        """Nothing runs yet. `settings` are lines of its configuration."""
        self.directory = directory
        self.port = free_ports(1)[0]
        self.url = f"redis://{HOST}:{self.port}"
        directory.mkdir(parents=True)
        self._password = password
        protected = () if password is None else (f"requirepass {password}",)
        durable = () if sentinel else ('save ""', "appendonly yes", "appendfsync always")
        lines = (
            f"port {self.port}",
            f"bind {HOST}",
            f"dir {directory}",
            *durable,
            *protected,
            *settings,
        )
        # A file, for a Sentinel writes into its own what it learns.
        (directory / "redis.conf").write_text("\n".join(lines) + "\n")
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """It answers, if only to say that it loads its data."""
        kind = ("--sentinel",) if self._sentinel else ()
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_redis_server().path, self.directory / "redis.conf", *kind, *arguments],
                stdout=log,
                stderr=log,
            )
        with self.client() as redis:
            while True:
                try:
                    redis.ping()
                    return
                except BusyLoadingError:
                    return
                except RedisConnectionError:
                    assert self._process.poll() is None, "redis-server ended while it started"

    def client(self) -> Any:
        """A way to it that fails at once if it is away, and has time if it is slow."""
        return BlockingRedis(
            host=HOST,
            port=self.port,
            password=self._password,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=60,
        )

    def kill(self) -> None:
        """It is gone, without having had a chance to say so."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It does nothing, and does not say so."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


class NodesWithRedis(LocalCluster):
    """Nodes, of which those in `redis_urls` stand before a Redis that somebody else runs."""

    def __init__(self, data_dir: Path, redis_urls: Mapping[str, str], **options: Any) -> None:
        options["env"] = {**WHOLE_LOGS, **options.get("env", {})}
        super().__init__(data_dir, **options)
        self._redis_urls = redis_urls

    def environment(self, node: str) -> dict[str, str]:
        url = self._redis_urls.get(node)
        return {**super().environment(node), **({} if url is None else {"REDIS_URL": url})}
