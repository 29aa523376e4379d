"""The compose cluster of a test run: its containers, networks and volumes, and what may break them.

What it is: `ComposeCluster`, the files of deploy/ under a project name and ports of its own.

What it assumes and guarantees: a Docker engine answers and the base images are there. Nothing of
another project is touched, and whatever a test did, `down` leaves nothing but images behind.

What it does not know: what the tests are about.

Where the idea is from: the commands that an operator would type, one method each.
"""

import asyncio
import json
import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.local_nodes import free_ports

ROOT = Path(__file__).parents[2]
NUMBERS = {"A": 1, "B": 2, "C": 3}
#: The end of each build argument that a test image is given, to look for it where it must not be.
MARKER = "must-not-be-in-the-image.invalid"
#: Building everything, with nothing in the engine's cache.
BUILD_MAX_S = 900.0
COMMAND_MAX_S = 180.0


class CommandFailed(Exception):
    """A command ended with another code than 0."""


def why_no_engine() -> str:
    """Why containers cannot be tested here; empty if they can."""
    try:
        asked = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no Docker engine answers: {error}"
    return "" if asked.returncode == 0 else f"no Docker engine answers: {asked.stderr.strip()}"


async def run(*command: str, env: Mapping[str, str] | None = None, max_s: float) -> str:
    """What the command printed. Raises CommandFailed, with what it complained of."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(max_s):
            out, err = await process.communicate()
    except BaseException:  # also a time limit: no command may go on behind the test
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode != 0:
        said = (out + err).decode(errors="replace")[-3000:]
        raise CommandFailed(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    return out.decode(errors="replace")


async def docker(*arguments: str) -> str:
    """What `docker` printed, without the white space around it."""
    return (await run("docker", *arguments, max_s=COMMAND_MAX_S)).strip()


class ComposeCluster:
    """One project. Services are named as in the file: `node1`, `redis1`, ..."""

    def __init__(self) -> None:
        self.project = f"lightcone-test-{os.getpid()}"
        self.image = "lightcone:test"
        ports = free_ports(len(NUMBERS))
        self.urls = {
            node: f"http://127.0.0.1:{port}" for node, port in zip(NUMBERS, ports, strict=True)
        }
        settings = re.findall(r"^#?([A-Z0-9_]+)=", (ROOT / "deploy/env.example").read_text(), re.M)
        # What this shell happens to set for a cluster of its owner's must not reach a test's.
        self.env = {name: value for name, value in os.environ.items() if name not in settings}
        self.env |= {f"NODE{number}_PORT": str(port) for number, port in enumerate(ports, 1)}
        self.env |= {
            "COMPOSE_PROJECT_NAME": self.project,
            "LIGHTCONE_VERSION": "test",
            "CLUSTER_SECRET": f"a-secret-which-{MARKER}",
            "FAULTS": "1",
            "PIP_TRUSTED_HOST": f"index-which-{MARKER}",
        }

    async def compose(self, *arguments: str, files: str = "", max_s: float = COMMAND_MAX_S) -> str:
        """What Compose printed; `files` are added to the usual one."""
        command = ("tools/compose", "--env-file", "deploy/env.example", *arguments)
        return await run(*command, env={**self.env, "FILES": files}, max_s=max_s)

    async def build(self) -> None:
        """The image of the nodes is that of the sources as they are."""
        # All three services have one image, so that one of them is enough.
        await self.compose("build", "node1", max_s=BUILD_MAX_S)

    async def up(self, *services: str) -> None:
        """The services, or all of them, run as the file says and are healthy."""
        await self.compose("up", "-d", "--no-build", *services)
        for service in services or await self.services():
            await self.until_healthy(service)

    async def down(self) -> None:
        """No container, network or volume of this project is left."""
        files = "docker-compose.faults.yml"
        await self.compose("down", "--volumes", "--timeout", "5", files=files)

    async def services(self) -> list[str]:
        return (await self.compose("config", "--services")).split()

    async def container(self, service: str) -> str:
        """The id of its container, running or not."""
        labels = {"project": self.project, "service": service}
        filters = [f"--filter=label=com.docker.compose.{k}={v}" for k, v in labels.items()]
        found = (await docker("ps", "--all", "--quiet", "--no-trunc", *filters)).split()
        assert len(found) == 1, f"{service} has {len(found)} containers"
        return found[0]

    async def inspect(self, service: str) -> dict[str, Any]:
        about: dict[str, Any] = json.loads(
            await docker("inspect", await self.container(service)),
        )[0]
        return about

    async def execute(self, service: str, *command: str) -> str:
        """What the command printed that was run inside the service's container."""
        return await docker("exec", await self.container(service), *command)

    async def redis_cli(self, node: str, *command: str) -> Any:
        """What `redis-cli`, inside the container of the node's Redis, says."""
        redis = f"redis{NUMBERS[node]}"
        return json.loads(await self.execute(redis, "redis-cli", "--json", *command))

    async def last_lines(self, service: str) -> str:
        """The end of the service's log, of either stream."""
        # `docker logs` keeps the two apart, and nodes log to the second.
        command = f"docker logs --tail 20 {await self.container(service)} 2>&1"
        return await run("sh", "-c", command, max_s=COMMAND_MAX_S)

    async def until_healthy(self, service: str) -> None:
        give_up = time.monotonic() + COMMAND_MAX_S
        while (state := (await self.inspect(service))["State"])["Health"]["Status"] != "healthy":
            if time.monotonic() > give_up:
                logs = await self.last_lines(service)
                raise AssertionError(f"{service} is not healthy: {state}\n{logs}")
            await asyncio.sleep(0.2)

    async def until_restarted(self, service: str, count: int) -> None:
        """The engine has started the service more often than `count` times by itself."""
        give_up = time.monotonic() + COMMAND_MAX_S
        while (await self.inspect(service))["RestartCount"] <= count:
            assert time.monotonic() < give_up, f"{service} was not started again"
            await asyncio.sleep(0.2)

    async def kill(self, *services: str) -> None:
        """The services were killed, all at once and without warning."""
        ids = [await self.container(service) for service in services]
        await docker("kill", "--signal", "KILL", *ids)

    async def start(self, *services: str) -> None:
        """The containers, the same ones as before, run and are healthy."""
        await docker("start", *[await self.container(service) for service in services])
        for service in services:
            await self.until_healthy(service)

    async def disconnect(self, service: str) -> None:
        """The service is on no network with its peers."""
        await docker("network", "disconnect", f"{self.project}_mesh", await self.container(service))

    async def connect(self, service: str) -> None:
        """The service is on the mesh, under the name by which its peers know it."""
        network, container = f"{self.project}_mesh", await self.container(service)
        await docker("network", "connect", "--alias", f"{service}.mesh", network, container)

    async def is_connected(self, service: str) -> bool:
        return (
            f"{self.project}_mesh" in (await self.inspect(service))["NetworkSettings"]["Networks"]
        )

    async def mend(self) -> None:
        """Everything runs, is connected and is healthy, whatever a failed test left behind."""
        for number in NUMBERS.values():
            for service in (f"redis{number}", f"node{number}"):
                if not (await self.inspect(service))["State"]["Running"]:
                    await docker("start", await self.container(service))
            if not await self.is_connected(f"node{number}"):
                await self.connect(f"node{number}")
        for number in NUMBERS.values():
            await self.until_healthy(f"node{number}")
