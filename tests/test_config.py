"""What a node's settings are, apart from where they are read."""

import pytest
from pydantic import ValidationError

from app import wire
from app.config import Config

SECRET = "correct horse battery"


def test_what_a_sender_may_put_into_a_batch_every_receiver_takes() -> None:
    most = wire.BATCH_WRITES_MAX
    assert Config(node_id="A", batch_max_writes=most).batch_max_writes == most
    with pytest.raises(ValidationError):
        Config(node_id="A", batch_max_writes=most + 1)


def test_peers_may_have_spaces_and_slashes_around_them() -> None:
    config = Config.model_validate(
        {"node_id": "A", "peers": " B = http://b:1/ ,\nC=https://[::1]:2,"}
    )
    assert config.peers == {"B": "http://b:1", "C": "https://[::1]:2"}


def test_a_worker_is_told_everything() -> None:
    settings = {
        **{"node_id": "A", "cluster_secret": SECRET, "peers": "B=http://b"},
        **{"redis_url": "unix:///s", "data_dir": "/d"},
    }
    config = Config.model_validate(settings)
    assert Config.from_json(config.to_json()) == config
    assert "\n" not in config.to_json()


def test_a_config_that_is_made_does_not_look_at_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PORT", "1234")
    assert Config(node_id="A").port == 8000


def test_a_config_cannot_be_changed() -> None:
    config = Config(node_id="A")
    with pytest.raises(ValidationError, match="frozen"):
        config.port = 1  # type: ignore[misc]
