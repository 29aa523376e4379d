"""What the package offers, and that it stands alone."""

import subprocess
import sys
import types

import client


def test_all_names_exactly_what_is_public() -> None:
    public = {
        name
        for name, value in vars(client).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert sorted(client.__all__) == client.__all__
    assert public == set(client.__all__)


def test_everything_public_is_documented() -> None:
    for name in client.__all__:
        assert getattr(client, name).__doc__, name


def test_the_errors_are_the_tree_that_is_drawn() -> None:
    drawn = client.errors.__doc__ or ""
    for name in client.__all__:
        member = getattr(client, name)
        if isinstance(member, type) and issubclass(member, client.LightconeError):
            assert name in drawn


def test_the_client_needs_nothing_of_the_node() -> None:
    loaded = "import sys, client; print([m for m in sys.modules if m.split('.')[0] == 'app'])"
    ran = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
