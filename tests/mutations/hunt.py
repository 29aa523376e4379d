"""Breaking a copy of the tree, and counting the seeds until the simulation notices.

What it is: `hunt`, which does so for one mutation from one first seed, in a process of its own.

What it assumes and guarantees: the tree itself is not touched. A mutation whose old text is not
there exactly once is an error, not a survivor.

What it does not know: what is broken, or how it is noticed.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutations.mutations import Mutation

ROOT: Final = Path(__file__).parents[2]
_COPIED: Final = ("app", "tests/simulation", "tests/model.py", "tests/compiled_lua.py")
_RUN: Final = """
import json, os, signal, sys
from tests.simulation.batch import run_seeds
first, most, clients_only, profile, cpu_max_s = json.loads(sys.argv[1])

def give_up(*_):
    print(json.dumps([number, seed, profile or "", "it goes on for ever"]), flush=True)
    os._exit(0)

signal.signal(signal.SIGPROF, give_up)
for number, seed in enumerate(range(first, first + most), 1):
    signal.setitimer(signal.ITIMER_PROF, cpu_max_s)
    if failures := run_seeds([seed], profile, clients_only=clients_only).failures:
        print(json.dumps([number, seed, failures[0].profile, failures[0].violation]))
        break
else:
    print("null")
"""
_SEED_CPU_MAX_S: Final = 60
"""A seed takes a second or two. One that takes this has noticed the mutation in its own way."""


@dataclass(frozen=True, slots=True)
class Caught:
    """A mutation was noticed: after so many seeds, at this one, in these words."""

    seeds: int
    seed: int
    profile: str
    violation: str


def mutated(text: str, old: str, new: str) -> str:
    """`text` with `new` for `old`. Raises ValueError if that is not there, or there twice."""
    if text.count(old) != 1:
        raise ValueError(f"stands there {text.count(old)} times: {old}")
    return text.replace(old, new)


def hunt(
    mutation: Mutation | None,
    first: int,
    most: int,
    clients_only: bool,
    cpu_max_s: float = _SEED_CPU_MAX_S,
) -> Caught | None:
    """How the mutation was noticed within `most` seeds from `first`; None if it was not.

    Without a mutation, the copy is as the tree is. A seed that takes more than `cpu_max_s` of CPU
    time has noticed it.
    """
    profile = mutation.profile if mutation else None
    with tempfile.TemporaryDirectory(prefix="lightcone-mutation-") as name:
        copy = Path(name)
        for part in _COPIED:
            source, target = ROOT / part, copy / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        for file, old, new in mutation.edits() if mutation else ():
            path = copy / file
            path.write_text(mutated(path.read_text(), old, new))
        arguments = json.dumps([first, most, clients_only, profile, cpu_max_s])
        done = subprocess.run(
            [sys.executable, "-c", _RUN, arguments],
            cwd=copy,
            env={"PYTHONHASHSEED": "0", "PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            check=True,
        )
    found = json.loads(done.stdout)
    return None if found is None else Caught(*found)
