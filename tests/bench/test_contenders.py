"""Who is measured: what each is asked, what must be installed, and that each ends."""

import base64
import json
from pathlib import Path

import aiohttp
import pytest

from app.errors import StartupError
from bench.contenders import CONTENDERS, VALUE, VALUE_BYTES, for_etcd, for_webdis
from bench.launch import launched
from tests.processes import alive


def test_values_are_as_long_as_is_said() -> None:
    assert len(VALUE) == VALUE_BYTES == 100


def test_our_node_and_the_handlers_like_it_are_asked_the_same() -> None:
    for operation in ("PUT", "GET"):
        asked = {
            CONTENDERS[name].request(operation, "k").encoded()
            for name in ("bare", "naive", "alone", "three", "eventual")
        }
        assert len(asked) == 1


def test_webdis_is_asked_in_its_own_words() -> None:
    put, get = for_webdis("PUT", "k"), for_webdis("GET", "k")
    assert (put.method, put.path, put.body) == ("PUT", "/SET/k", VALUE)
    assert (get.method, get.path, get.body) == ("GET", "/GET/k.txt", b"")


def test_etcd_is_asked_in_its_own_words() -> None:
    put, get = for_etcd("PUT", "k"), for_etcd("GET", "k")
    key = base64.b64encode(b"k").decode()
    assert (put.path, get.path) == ("/v3/kv/put", "/v3/kv/range")
    assert json.loads(put.body) == {"key": key, "value": base64.b64encode(VALUE).decode()}
    assert json.loads(get.body) == {"key": key}


def test_who_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert CONTENDERS["webdis"].lacks("always") == "webdis is not installed"
    assert CONTENDERS["alone"].lacks("always") is None


def test_who_cannot_sync_as_the_others_do_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert CONTENDERS["etcd"].lacks("always") is None
    assert CONTENDERS["etcd"].lacks("everysec") == "it has no fsync everysec"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                bool(CONTENDERS[name].lacks("always")), reason=f"{name} is not installed"
            ),
        )
        for name in ("bare", "naive", "alone", "webdis", "etcd")
    ],
)
async def test_a_contender_keeps_what_it_is_given_and_ends(name: str, tmp_path: Path) -> None:
    contender = CONTENDERS[name]
    bodies = []
    async with contender.start(tmp_path, "always") as running, aiohttp.ClientSession() as http:
        for operation in ("PUT", "GET"):
            asked = contender.request(operation, "k")
            url = f"http://127.0.0.1:{running.ports[0]}{asked.path}"
            async with http.request(
                asked.method, url, data=asked.body, headers=asked.headers
            ) as response:
                assert response.status == 200
                assert "Content-Length" in response.headers, "the generator needs it"
                bodies.append(await response.read())
        pids = [pid for pids in running.processes.values() for pid in pids]
        assert pids and all(alive(pid) for pid in pids)
        assert len(set(pids)) == len(pids)
    if contender.keeps:
        assert VALUE in bodies[1] or base64.b64encode(VALUE) in bodies[1]
    assert not any(alive(pid) for pid in pids)


async def test_a_program_that_ends_at_once_says_why(tmp_path: Path) -> None:
    command = ("sh", "-c", "echo pigs cannot fly; exit 3")
    with pytest.raises(StartupError, match=r"(?s)code 3.*pigs cannot fly"):
        async with launched("pigs", tmp_path, *command, port=1):
            pass
