"""What no compiler checks: headers of scripts, layers, and that documents name all there is."""

import ast
import inspect
import json
import re
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from app import scripts, shapes
from app.config import Config
from app.http_status import limits
from app.keys import Keys
from app.lane_scripts import LaneScripts
from app.problems import OF_NO_ROUTE, STATUS, kind
from app.scripts import Scripts
from app.settings_text import list_settings
from app.snapshot_scripts import SnapshotScripts
from tools import contract_page

ROOT = Path(__file__).parents[1]
APP = ROOT / "app"
LUA = sorted(path for path in scripts.LUA.glob("*.lua") if not path.name.endswith(".inc.lua"))
INCLUDES = sorted(scripts.LUA.glob("*.inc.lua"))
INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)

PURE = (
    *("vector_clock", "write", "context", "incarnation", "relay", "codec", "wire", "errors"),
    *("clock_forms", "part_forms", "compression"),
    *("snapshot", "stability", "standing", "lost", "shapes"),
    *("conditions", "transactions", "explain"),
)
EFFECTS = {"asyncio", "time", "random", "datetime", "os", "socket", "threading", "redis", "aiohttp"}

NO_TEST_FILE = {
    "__init__": "holds the version only",
    "__main__": "three lines around the server: tests/test_server.py starts it as a process",
    "contract": "what is promised: tests/test_openapi.py reads it, and all tests of routes keep it",
    "settled": "one rule: tests/test_node.py starts a Redis again under a node",
    "shapes": "types only: the type checker and tests/test_openapi.py read them",
    "checks": "what a request may look like: tests/test_http_api.py sends what may not",
    "existence": "one rule: tests/test_deferred.py asks for what it decides",
    "lane_scripts": "scripts made callable: tests/lua/test_deferred.py calls them",
    "snapshot_scripts": "scripts made callable: tests/lua/test_snapshots.py calls them",
    "http_backup": "two routes around backup.py: tests/test_backup.py asks them",
    "http_members": "what members are shown and changed: tests/test_members.py asks for it",
    "http_explain": "the search in the logs: tests/test_explain.py asks for it",
    "http_lost": "one route: tests/test_losses.py asks it",
    "http_shapes": "one form: tests/test_http_kv.py reads it",
    "http_write": "what writing requests share: tests/test_http_kv.py makes them",
    "http_watch": "one route: tests/test_watching.py reads what it streams",
    "http_txn": "what is answered to transactions: tests/test_transactions.py sends them",
    "keys": "names only: every test of the store reads them, and this file their documents",
    "problems": "what errors look like: tests/test_http_api.py causes them",
    "snapshot_reading": "what is sent: tests/test_snapshot_sending.py looks at it",
    "snapshot": "values only: tests/test_wire.py and all tests of snapshots make them",
}
"""Modules of app/ that have no tests/test_MODULE.py, and why."""


# --- scripts -------------------------------------------------------------------------------------


def header_and_code(path: Path) -> tuple[str, str]:
    header, end, code = path.read_text().partition("\n]]\n")
    assert header.startswith("--[[\n") and end, f"{path.name} begins with a header"
    return header, code


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
@pytest.mark.parametrize("kind", ["KEYS", "ARGV"])
def test_a_script_documents_what_it_is_given_and_nothing_else(path: Path, kind: str) -> None:
    header, code = header_and_code(path)
    documented = re.findall(rf"^  {kind}\[(\d+)(\+?)\] +\S", header, re.MULTILINE)
    assert documented, f"{path.name} documents its {kind}"
    numbers = [int(number) for number, _ in documented]
    assert numbers == list(range(1, len(numbers) + 1)), "each once, in order"

    single = {int(number) for number, rest in documented if not rest}
    used = {int(number) for number in re.findall(rf"{kind}\[(\d+)\]", code)}
    assert used == single

    rest = [int(number) for number, rest in documented if rest]
    counted = set(re.findall(rf"{kind}\[([^\]\d][^\]]*)\]", code))
    assert bool(rest) == bool(counted), "what is documented as N+ is counted through, and only that"
    assert rest in ([], numbers[-1:]), "and it comes last"
    for first in rest:
        assert re.search(rf"^local [\w, ]+ = {first}\b", code, re.MULTILINE), (
            f"the count through {kind} begins at {first}"
        )


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_a_script_says_what_it_returns_and_why_it_is_atomic(path: Path) -> None:
    header, code = header_and_code(path)
    assert re.search(r"^  Returns  \S", header, re.MULTILINE)
    assert re.search(r"^  Atomic,", header, re.MULTILINE)
    assert re.search(r"^(  )?return ", code, re.MULTILINE)


class Registering:
    """A Redis that only remembers which scripts it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def register_script(self, text: str) -> str:
        self.texts.append(text)
        return text


def test_every_script_is_loaded_once() -> None:
    redis = Registering()
    Scripts(cast(Redis, redis), Keys())
    LaneScripts(cast(Redis, redis), Keys())
    SnapshotScripts(cast(Redis, redis), Keys())
    assert sorted(redis.texts) == sorted(scripts.source(path.stem) for path in LUA)


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_a_script_is_loaded_with_its_includes(path: Path) -> None:
    text = scripts.source(path.stem)
    assert "@include" not in text
    for name in INCLUDE.findall(path.read_text()):
        assert (scripts.LUA / f"{name}.inc.lua").read_text() in text


def test_every_include_exists_and_is_used() -> None:
    included = {name for path in LUA for name in INCLUDE.findall(path.read_text())}
    assert included == {path.name.removesuffix(".inc.lua") for path in INCLUDES}
    assert not any("@include" in path.read_text() for path in INCLUDES), "includes do not nest"


def test_no_other_file_lies_beside_the_scripts() -> None:
    assert set(scripts.LUA.iterdir()) == {*LUA, *INCLUDES}


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_every_script_has_a_test(path: Path) -> None:
    tests = "".join(test.read_text() for test in (ROOT / "tests" / "lua").glob("test_*.py"))
    assert f"lua/{path.name}" in tests


# --- layers --------------------------------------------------------------------------------------


def imports(module: str) -> set[str]:
    """What a module of app/ imports, by full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((APP / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_nothing_that_acts(module: str) -> None:
    names = imports(module)
    assert not {name.split(".")[0] for name in names} & EFFECTS
    ours = {name.split(".")[1] for name in names if name.startswith("app.")}
    assert ours <= set(PURE), "nor one of ours that does"


def test_the_client_imports_nothing_of_the_node() -> None:
    for path in (ROOT / "client").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.module.split(".")[0] != "app", path.name
            elif isinstance(node, ast.Import):
                assert not any(a.name.split(".")[0] == "app" for a in node.names), path.name


def modules() -> list[str]:
    return sorted(path.stem for path in APP.glob("*.py"))


@pytest.mark.parametrize("module", modules())
def test_a_module_has_a_test_file_of_its_name_or_a_reason(module: str) -> None:
    has_tests = (ROOT / "tests" / f"test_{module}.py").exists()
    assert has_tests != (module in NO_TEST_FILE)


def test_no_reason_is_left_over() -> None:
    assert set(NO_TEST_FILE) <= set(modules())


@pytest.mark.parametrize("module", [module for module in modules() if module != "__init__"])
def test_a_module_begins_with_a_docstring_and_not_with_a_copy(module: str) -> None:
    docstring = ast.get_docstring(ast.parse((APP / f"{module}.py").read_text()))
    assert docstring and len(docstring.splitlines()) > 2
    others = {
        ast.get_docstring(ast.parse((APP / f"{other}.py").read_text()))
        for other in modules()
        if other != module
    }
    assert docstring not in others


# --- documents -----------------------------------------------------------------------------------


def document(name: str) -> str:
    path = ROOT / "docs" / name
    assert path.exists(), f"docs/{name} is to be written"
    return path.read_text()


def test_the_layers_are_shown_as_they_are_held() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    _, layered = project["tool"]["importlinter"]["contracts"]
    shown = "\n".join(["```", *layered["layers"], "```"])
    assert shown in (ROOT / "ARCHITECTURE.md").read_text()


def routes() -> list[str]:
    """Every route of the HTTP interface, for instance `PUT /kv/{key}`."""
    return [f"{method} {path}" for method, path in contract_page.interface().served()]


@pytest.mark.parametrize("route", routes())
def test_every_route_is_documented(route: str) -> None:
    assert f"`{route}`" in document("http.md")


def problem_types() -> list[str]:
    """Every type of problem, for instance `bad-key`."""
    return [*map(kind, STATUS), *OF_NO_ROUTE]


@pytest.mark.parametrize("problem", problem_types())
def test_every_type_of_problem_is_documented(problem: str) -> None:
    assert f"`{problem}`" in document("http.md")


def listed_problems() -> dict[str, set[str]]:
    """Of each route whose problems docs/http.md lists, the types of these."""
    listed: dict[str, set[str]] = {}
    for section in re.split(r"^#{2,3} ", document("http.md"), flags=re.MULTILINE):
        found = re.search(r"(?:^\| problems \| |Problems: )((?:`[a-z-]+`(?:, )?)+)", section, re.M)
        for route in re.findall(r"`((?:GET|PUT|POST|DELETE) [^`]+)`", section.partition("\n")[0]):
            if found:
                listed[route] = set(re.findall(r"`([a-z-]+)`", found[1]))
    return listed


def test_the_problems_of_routes_are_documented_as_they_are_promised() -> None:
    listed = listed_problems()
    assert len(listed) > 10
    paths = contract_page.interface().document()["paths"]
    for route, problems in listed.items():
        method, path = route.split()
        answers = paths[path][method.lower()]["responses"].values()
        refusals = [answer["$ref"].rpartition("/")[2] for answer in answers if "$ref" in answer]
        promised = {name for refusal in refusals for name in refusal.split(".")}
        assert problems == promised - {"bad-http"}, route


@pytest.mark.parametrize(
    ("page", "path", "shape"),
    [
        ("docs/http.md", "/status", shapes.Status),
        ("docs/http.md", "/pending", shapes.Pending),
        ("README.md", "/pending", shapes.Pending),
    ],
)
def test_an_example_of_where_a_node_stands_shows_all_there_is(
    page: str, path: str, shape: type[Any]
) -> None:
    found = re.search(
        rf"^\$ curl \S+{path}\n(.*?)^(?:\$|```)", (ROOT / page).read_text(), re.M | re.S
    )
    assert found, "there is an example"
    shown = json.loads(found[1])
    assert list(shown) == list(shape.__annotations__)
    for write in shown.get("writes", []):
        assert list(write) == list(shapes.PendingWrite.__annotations__)
    for peer in shown.get("peers", {}).values():
        assert list(peer) == list(shapes.PeerStatus.__annotations__)
    if "limits" in shown:
        assert shown["limits"] == limits(Config(node_id="A"))


def test_the_settings_are_documented_as_they_are() -> None:
    """Rows of a table that begin with `| `NAME` | `default` |`; generated, so in our order."""
    rows = re.findall(
        r"^\| *`([A-Z][A-Z0-9_]*)` *\| *`?([^|`]*?)`? *\|", document("settings.md"), re.MULTILINE
    )
    assert rows == [(setting.name, setting.default) for setting in list_settings(Config)]


def redis_names() -> list[str]:
    """Every name of a key or channel, for instance `log:{actor}`."""
    keys = Keys()
    names = []
    for name, member in vars(Keys).items():
        if name.startswith("_") or name.endswith("_stem"):
            continue
        if isinstance(member, property):
            names.append(getattr(keys, name))
        elif inspect.isfunction(member):
            parameters = [p for p in inspect.signature(member).parameters if p != "self"]
            names.append(member(keys, *(f"{{{parameter}}}" for parameter in parameters)))
    return names


@pytest.mark.parametrize("name", redis_names())
def test_every_name_in_redis_is_documented(name: str) -> None:
    assert f"`{name}`" in document("redis.md")


def test_the_tests_of_documents_know_something_to_look_for() -> None:
    assert {"PUT /kv/{key}", "POST /replicate", "DELETE /faults/{peer}"} <= set(routes())
    assert {"bad-key", "same-node-id", "redis-unavailable"} <= set(problem_types())
    assert {"clock", "kv:{key}", "log:{actor}", "pending:{actor}"} <= set(redis_names())
