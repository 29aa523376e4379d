"""The commands: a tiny run of each, as people start them, and what they refuse."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from app.local_nodes import children_of
from tests.html_text import Page
from tests.processes import alive


def run(module: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.timeout(300)
def test_a_tiny_run_measures_everything_it_says(tmp_path: Path) -> None:
    done = run(
        "bench",
        *("--contenders", "bare", "naive", "alone", "--rounds", "1", "--seconds", "0.2"),
        *("--warm-up", "0.1", "--connections", "8", "--keys", "20", "--load", "ours"),
        *("--directory", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    assert all(f"{name} starts" in done.stderr for name in ("bare", "naive", "alone"))
    assert "PUT: alone, CPU of the worker <= 1.5 x bare" in done.stdout

    told = json.loads((tmp_path / "bench.json").read_text())
    seen = {(s["contender"], s["operation"], s["load"]) for s in told["samples"]}
    assert len(seen) == len(told["samples"]) == 3 * 2 * 2
    for sample in told["samples"]:
        answered = sample["answered"]
        assert answered["requests"] > 0 and answered["errors"] == 0 and answered["cpu_s"] > 0
        assert answered["p50_us"] <= answered["p99_us"] <= answered["p999_us"]
        roles = {"bare": {"worker"}, "naive": {"worker", "redis"}}.get(
            sample["contender"], {"worker", "redis", "supervisor"}
        )
        assert set(sample["cpu_s"]) == roles
        assert sample["cpu_s"]["worker"] > 0
        assert sample["machine"]["all_s"] > 0
    page = Page((tmp_path / "bench.html").read_text())
    assert not page.open and not page.fetched and "naive" in page.text


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("module", "arguments", "count"),
    [
        ("link", ("--writes", "600", "--keys", "9", "--batches", "128", "512", "--nodes", "3"), 4),
        (
            "growth",
            (
                *("--nodes", "4", "--keys", "1500", "--waiting", "200", "--writes", "5000"),
                *(
                    "--link-rounds",
                    "1",
                    "--seconds",
                    "0.2",
                    "--warm-up",
                    "0.1",
                    "--connections",
                    "4",
                ),
            ),
            6,
        ),
        ("bulk", ("--puts", "250", "--connections", "2"), 2),
    ],
)
def test_a_tiny_run_of_each_other_measurement_has_a_figure_for_each_goal(
    tmp_path: Path, module: str, arguments: tuple[str, ...], count: int
) -> None:
    done = run(f"bench.{module}", "--rounds", "1", *arguments, "--directory", str(tmp_path))
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / f"{module}.json").read_text())
    assert len(told["readings"]) == count
    for reading in told["readings"]:
        assert reading["count"] > 0 and reading["seconds"] > 0
        assert {"worker", "receiver"} & set(reading["cpu_s"])
    assert told["goals"] and all(goal["rounds"] for goal in told["goals"])
    assert all(goal["goal"] in " ".join(done.stdout.split()) for goal in told["goals"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("load", ["0.5", "0.1"])
def test_a_tiny_run_sees_markers_at_every_node_that_runs(tmp_path: Path, load: str) -> None:
    done = run(
        "bench.lag",
        *("--delays", "0", "10", "--rounds", "1", "--seconds", "0.5", "--per-second", "10"),
        *("--calibrate", "0.5", "--connections", "8", "--keys", "20", "--load", load),
        *("--directory", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    judged = "10 ms: p99 beyond the delay of the link" in done.stdout
    assert judged == (load == "0.5"), "the goals are about half load"
    told = json.loads((tmp_path / "lag.json").read_text())
    seen = {(marker["case"], marker["node"]) for marker in told["markers"]}
    assert seen == {
        *((case, node) for case in ("0 ms", "10 ms", "0 ms, C at 10 ms") for node in "BC"),
        ("0 ms, C stopped", "B"),
    }
    for marker in told["markers"]:
        assert marker["lag_ms"] > marker["put_ms"] > 0
        far = marker["case"] == "10 ms" or (marker["case"], marker["node"]) == (
            "0 ms, C at 10 ms",
            "C",
        )
        assert marker["lag_ms"] >= 10 or not far, "none is seen before it can be there"
    assert len(told["goals"]) == (2 * 2 + 2 * 2 if judged else 0)
    assert all(load["requests"] and not load["errors"] for load in told["loads"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("each", "of_two"), [((), 8), (("--each",), 16)])
def test_a_tiny_run_compares_one_worker_and_two(
    tmp_path: Path, each: tuple[str, ...], of_two: int
) -> None:
    done = run(
        "bench.workers",
        *("--workers", "2", "--rounds", "1", "--seconds", "0.2", "--warm-up", "0.1"),
        *("--connections", "8", "--keys", "20", "--directory", str(tmp_path), *each),
    )
    assert done.returncode == 0, done.stderr
    assert "GET: CPU time with 2 workers, over that with one" in done.stdout
    told = json.loads((tmp_path / "workers.json").read_text())
    assert {sample["contender"] for sample in told["samples"]} == {"1 worker", "2 workers"}
    assert told["connections"] == {"1 worker": 8, "2 workers": of_two}
    assert all(len(goal["rounds"]) == 1 for goal in told["goals"])


@pytest.mark.timeout(300)
def test_a_tiny_run_watches_memory(tmp_path: Path) -> None:
    done = run(
        "bench.memory",
        *("--minutes", "0.05", "--every", "0.1", "--connections", "8", "--keys", "20"),
        *("--directory", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    assert "worker: growth after the warm-up" in done.stdout
    told = json.loads((tmp_path / "memory.json").read_text())
    assert set(told["looks"]) == {"worker", "redis", "supervisor"}
    for looks in told["looks"].values():
        assert len(looks) >= 5 and all(mb > 0 for _, mb in looks)
    assert told["requests"] > 0


@pytest.mark.timeout(300)
def test_one_that_is_told_to_end_leaves_nothing_behind(tmp_path: Path) -> None:
    # Short, for there will be sockets in it.
    place = Path(tempfile.mkdtemp(prefix="bench-"))
    arguments = ("--contenders", "alone", "--seconds", "50", "--load", "ours")
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments, "--directory", str(tmp_path)],
        env={**os.environ, "TMPDIR": str(place)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "PUT" in line:
            break
    started = children_of(process.pid)
    started += [pid for child in started for pid in children_of(child)]
    process.terminate()
    assert "nothing was written" in process.communicate(timeout=100)[1]
    assert process.returncode == 2
    assert len(started) >= 3 and not any(alive(pid) for pid in started)
    assert list(tmp_path.iterdir()) == []
    place.rmdir()


def test_who_was_asked_for_and_is_not_there_ends_it_before_it_begins(tmp_path: Path) -> None:
    done = run("bench", "--contenders", "webdis", "--directory", str(tmp_path), PATH="")
    assert done.returncode == 2
    assert "webdis cannot be measured: webdis is not installed" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--load", "wrk", "--seconds", "0.5"], "wrk takes whole seconds"),
        (["--load", "wrk", "--sessions"], "knows no sessions"),
        (["--rounds", "0"], "0 is not a number from 1 up"),
        (["--seconds", "-1"], "-1 is not a time above 0"),
        (["--contenders", "nobody"], "nobody"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], said: str) -> None:
    done = run("bench", "--contenders", "bare", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("load", ["0", "1.01", "half"])
def test_a_load_is_a_part_of_what_can_be_taken(load: str) -> None:
    done = run("bench.lag", "--load", load)
    assert done.returncode == 2
    assert f"{load} is not a part above 0 and up to 1" in done.stderr


@pytest.mark.timeout(300)
def test_a_worker_is_profiled_from_inside_where_nobody_may_look_into_it(tmp_path: Path) -> None:
    pytest.importorskip("pyinstrument")
    done = run(
        "bench.profiling",
        *("--seconds", "0.5", "--connections", "4", "--keys", "10", "--by", "pyinstrument"),
        *("--directory", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "profile-PUT.html").read_text()
    assert "kv_store.py" in page and "commit" in page
