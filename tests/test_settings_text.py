"""Settings as text: names that are nearly right, and the table."""

import pytest

from app.config import Config
from app.settings_text import list_settings, mask, probable_mistakes, settings_table


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PEER", "PEERS"),
        ("NODEID", "NODE_ID"),
        ("REDIS_URI", "REDIS_URL"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("WORKER", "WORKERS"),
        ("fault", "FAULTS"),
    ],
)
def test_a_name_that_is_nearly_right_is_pointed_out(name: str, meant: str) -> None:
    assert probable_mistakes({name: "1", "PORT": "1"}, Config) == [
        f"{name} is set, but is no setting of a node. Was {meant} meant?"
    ]


def test_names_of_other_programs_are_left_alone() -> None:
    others = ["HOSTNAME", "PATH", "POST", "HOME", "NODE_PATH", "XDG_DATA_DIRS", "REDIS_HOST", "_"]
    assert probable_mistakes(dict.fromkeys([*others, "node_id", "PEERS"], ""), Config) == []


def test_every_setting_is_described_and_shown() -> None:
    table = settings_table(Config)
    for setting in list_settings(Config):
        assert setting.description.endswith("."), setting.name
        assert f"{setting.name} " in table
    assert max(map(len, table.splitlines())) <= 100


def test_every_limit_says_its_unit() -> None:
    units: dict[str, str | tuple[str, ...]] = {
        **{"BYTES": "Bytes.", "MS": "Milliseconds.", "WRITES": "Writes."},
        "MAX": ("Writes.", "Watchers.", "Operations."),
    }
    for setting in list_settings(Config):
        if unit := units.get(setting.name.rpartition("_")[2]):
            assert setting.description.startswith(unit), setting.name


def test_passwords_in_urls_are_masked() -> None:
    assert mask("B=http://u:p@b, C=http://c") == "B=http://***@b, C=http://c"
