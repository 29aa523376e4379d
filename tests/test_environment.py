"""The settings are read from the environment and a file, and all that is wrong is told together."""

import os
from pathlib import Path

import pytest

from app.config import Config
from app.environment import config_from_env
from app.errors import StartupError

SECRET = "correct horse battery"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower() in Config.model_fields or name.startswith(("API_TOKENS", "TLS_")):
            monkeypatch.delenv(name)


def config_of(monkeypatch: pytest.MonkeyPatch, **settings: str) -> Config:
    for name, value in {"NODE_ID": "A", **settings}.items():
        monkeypatch.setenv(name, value)
    return config_from_env()


def problems_of(monkeypatch: pytest.MonkeyPatch, **settings: str) -> list[str]:
    with pytest.raises(StartupError) as caught:
        config_of(monkeypatch, **settings)
    title, *problems = str(caught.value).splitlines()
    assert title == "The settings cannot be used:"
    return [problem.strip() for problem in problems]


def test_only_the_node_id_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_of(monkeypatch) == Config(node_id="A")


def test_a_missing_node_id_is_named() -> None:
    with pytest.raises(StartupError, match="NODE_ID: is required"):
        config_from_env()


def test_every_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(
        monkeypatch,
        NODE_ID="site-1_x",
        HOST="0.0.0.0",
        PORT="0",
        PEERS="B=http://b:8000,C=https://c",
        REDIS_URL="redis://localhost:6379/3",
        DATA_DIR="/var/lib/lightcone",
        WORKERS="4",
        FSYNC="everysec",
        CLUSTER_SECRET=SECRET,
        FAULTS="1",
        LOG_LEVEL="debug",
        LOG_FORMAT="json",
        PENDING_MAX="10",
    )
    assert (config.node_id, config.host, config.port) == ("site-1_x", "0.0.0.0", 0)
    assert config.peers == {"B": "http://b:8000", "C": "https://c"}
    assert config.redis_url == "redis://localhost:6379/3"
    assert config.data_dir == Path("/var/lib/lightcone")
    assert (config.workers, config.fsync, config.faults) == (4, "everysec", True)
    assert config.cluster_secret is not None
    assert config.cluster_secret.get_secret_value() == SECRET
    assert (config.log_level, config.log_format, config.pending_max) == ("debug", "json", 10)


def test_names_and_words_may_be_of_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("workers", "3")
    config = config_of(monkeypatch, LOG_LEVEL="WARNING", FSYNC="Trust", LOG_FORMAT="JSON")
    assert (config.workers, config.log_level, config.fsync) == (3, "warning", "trust")


def test_where_a_node_is_reached_has_one_form(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_of(monkeypatch, ADVERTISE_URL="http://a:1/").advertise_url == "http://a:1"
    assert config_of(monkeypatch, ADVERTISE_URL="").advertise_url is None


def test_an_empty_value_means_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(monkeypatch, REDIS_URL="", PEERS="", PORT="", LOG_LEVEL="")
    assert config == Config(node_id="A")


def test_every_problem_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = problems_of(monkeypatch, NODE_ID="?", PORT="http", FSYNC="never", LEASE_MS="1")
    assert [problem.partition(":")[0] for problem in problems] == [
        *("NODE_ID", "PORT", "FSYNC", "LEASE_MS")
    ]


@pytest.mark.parametrize(
    ("name", "value", "trouble"),
    [
        ("NODE_ID", "-a", "begin with a letter or digit"),
        ("NODE_ID", "a" * 33, "1 to 32"),
        ("NODE_ID", "a~1", "1 to 32"),
        ("NODE_ID", "A\n", "1 to 32"),
        ("ADVERTISE_URL", "a:8000", "must be http://host:port"),
        ("ADVERTISE_URL", "http://a:8000/kv", "with nothing after it"),
        ("PORT", "65536", "not `65536`"),
        ("PORT", "-1", "not `-1`"),
        ("WORKERS", "0", "not `0`"),
        ("WORKERS", "65", "not `65`"),
        ("FSYNC", "no", "'always', 'everysec' or 'trust', not `no`"),
        ("FAULTS", "perhaps", "not `perhaps`"),
        ("LOG_LEVEL", "loud", "not `loud`"),
        ("LOG_FORMAT", "xml", "not `xml`"),
        ("REDIS_URL", "localhost:6379", "must begin with redis://"),
        ("REDIS_URL", "http://localhost", "must begin with redis://"),
        ("BATCH_MAX_WRITES", "10001", "not `10001`"),
        ("DEFERRED_MAX", "0", "not `0`"),
        ("PENDING_MAX", "0", "not `0`"),
        ("PENDING_MAX", "many", "not `many`"),
        ("SWEEP_MS", "0.5", "not `0.5`"),
        ("RETRY_MAX_MS", "49", "less than RETRY_MIN_MS, which is 50"),
        ("LEASE_MS", "500", "more than HEARTBEAT_MS, which is 500"),
        ("REPLICATE_MAX_BYTES", "2000000", "which is 5308416"),
        ("CLUSTER_SECRET", "too short", "16 characters or more, not 9"),
        ("CLUSTER_SECRET", "", "16 characters or more, not 0"),
        ("CLUSTER_SECRET", SECRET + "\n", "white space"),
        ("API_TOKENS", "t", "does not have this setting"),
        ("TLS_CERT", "/cert", "does not have this setting"),
    ],
)
def test_a_bad_value_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, trouble: str
) -> None:
    (problem,) = problems_of(monkeypatch, **{name: value})
    assert problem.startswith(f"{name}: ")
    assert trouble in problem


@pytest.mark.parametrize(
    ("peers", "trouble"),
    [
        ("B", "`B` is not of the form"),
        ("B=", "`B=` is not of the form"),
        ("=http://b", "`=http://b` is not of the form"),
        ("B=http://b,B=http://c", "`B` is named twice"),
        ("B=http://b,C=http://b/", "`C` has the same URL"),
        ("A=http://a", "names this node itself (`A`)"),
        ("B~2=http://b", "`B~2` is not a node id"),
        ("B=b:8000", "must be http://host:port"),
        ("B=ftp://b", "must be http://host:port"),
        ("B=http://", "must be http://host:port"),
        ("B=http://b/path", "must be http://host:port"),
        ("B=http://b?q=1", "must be http://host:port"),
        ("B=http://b#f", "must be http://host:port"),
        ("B=http://b:port", "must be http://host:port"),
        ("B=http://b:99999", "must be http://host:port"),
        ("B=http://[::1", "must be http://host:port"),
        ("B=http://user:pass@b", "must not hold a password"),
    ],
)
def test_bad_peers_are_refused_with_the_wrong_part(
    monkeypatch: pytest.MonkeyPatch, peers: str, trouble: str
) -> None:
    (problem,) = problems_of(monkeypatch, PEERS=peers)
    assert problem.startswith("PEERS: ")
    assert trouble in problem


def test_no_secret_is_ever_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "\n".join(
        problems_of(
            monkeypatch,
            CLUSTER_SECRET="hunter2",
            REDIS_URL="https://user:hunter2@redis",
            PEERS="B=http://user:hunter2@b/path",
            API_TOKENS="hunter2",
        )
    )
    assert told.count("\n") == 3
    assert "hunter2" not in told
    assert SECRET not in repr(Config.model_validate({"node_id": "A", "cluster_secret": SECRET}))


def test_a_file_holds_settings_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "a.env"
    file.write_text("# this node\nNODE_ID=A\nPORT=1\nexport CLUSTER_SECRET='a$b c#d 0123456789'\n")
    monkeypatch.setenv("PORT", "2")
    config = config_from_env(file)
    assert (config.node_id, config.port) == ("A", 2)
    assert config.cluster_secret is not None
    assert config.cluster_secret.get_secret_value() == "a$b c#d 0123456789"


def test_a_bad_file_is_refused_with_the_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.env"
    file.write_text("NODE_ID=A\nPORTS=1\nTLS_CERT=x\nWHATEVER=1\nPORT 2\nPEERS\nNODE_ID=B\n")
    with pytest.raises(StartupError) as caught:
        config_from_env(file)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        f"PORTS: is no setting of a node ({file}, line 2). Was PORT meant?",
        f"WHATEVER: is no setting of a node ({file}, line 4).",
        f"{file}, line 5: is not of the form NAME=value",
        f"{file}, line 6: is not of the form NAME=value",
        f"NODE_ID: is set twice ({file}, line 7)",
        "TLS_CERT: this version does not have this setting. It was not ignored, because it "
        "protects something; take it away to start without that protection.",
    ]


def test_a_file_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NODE_ID", "A")
    with pytest.raises(StartupError, match=r"--env-file .*nowhere: cannot be read"):
        config_from_env(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StartupError, match=r"--env-file .*binary: cannot be read"):
        config_from_env(tmp_path / "binary")
