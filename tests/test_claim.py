"""A node's Redis is claimed before anything serves; what claims it needs nothing that serves."""

import subprocess
import sys

import pytest

from app import claim
from app.config import Config
from app.errors import StartupError


async def test_a_redis_that_does_not_come_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claim, "_REDIS_COMES_WITHIN_S", 0.1)
    config = Config(node_id="A", redis_url="redis://user:hunter2@127.0.0.1:1/3")
    with pytest.raises(StartupError, match=r"REDIS_URL: .*127\.0\.0\.1:1.* cannot be used") as told:
        await claim.claim_redis(config)
    assert "hunter2" not in str(told.value)


def test_a_supervisor_is_up_without_what_serves() -> None:
    program = "import sys, app.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not {"aiohttp", "app.node"} & set(done.stdout.decode().split())
