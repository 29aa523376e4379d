"""Contender `eventual`: our node in a copy whose causality was taken out.

What it is: `eventual_tree`, which makes the copy, and a cluster that runs it.

What it assumes and guarantees: the tree itself is not touched. Each edit's old text stands exactly
once in its file, or the copy is not made. What is left is an eventually consistent store at its
cheapest: writes are applied as they come, the last one to come stays, and nobody is asked what was
seen. It must never be run for anything but a comparison.

What it does not know: how much that saves.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from app.local_nodes import LocalCluster

ROOT: Final = Path(__file__).parents[1]


class Edit(NamedTuple):
    """What is changed in a copy: `old` becomes `new` in `file`."""

    what: str
    file: str
    old: str
    new: str


EDITS: Final = (
    Edit(
        "a write names no dependencies but its actor's write before it",
        "app/lua/commit.inc.lua",
        "'dependencies', past_as_text(clock, actor), 'operations'",
        "'dependencies', clock_text({ [actor] = clock[actor] or 0 }), 'operations'",
    ),
    Edit(
        "dependencies are not read",
        "app/lua/receive_writes.lua",
        "    local dependencies = covered or parse_clock(dependencies_text)\n",
        "    local dependencies = {}\n",
    ),
    Edit(
        "delivery waits for no dependency",
        "app/lua/receive_writes.lua",
        "if sequence == applied_here + 1 and (covered or not lacks(dependencies)) then",
        "if sequence == applied_here + 1 then",
    ),
    Edit(
        "what comes last stays alone: there are no siblings",
        "app/lua/receive_writes.lua",
        "if number <= (dependencies[author] or 0) then\n        superseded",
        "if true then\n        superseded",
    ),
    Edit(
        "what a session has seen is not looked at",
        "app/http_session.py",
        'return self.contexts.parse(",".join(tokens)) if tokens else NOTHING',
        "return NOTHING",
    ),
)


def eventual_tree(directory: Path, edits: Sequence[Edit] = EDITS) -> Path:
    """A directory to run `python -m app` from, with these edits. Raises ValueError."""
    tree = directory / "eventual-tree"
    if not tree.exists():
        shutil.copytree(ROOT / "app", tree / "app", ignore=shutil.ignore_patterns("__pycache__"))
        for edit in edits:
            path = tree / edit.file
            text = path.read_text()
            if text.count(edit.old) != 1:
                raise ValueError(
                    f"bench/eventual.py does not fit {edit.file}: to have it that {edit.what}, one "
                    f"text is to be changed, which stands there {text.count(edit.old)} times:\n"
                    f"{edit.old}"
                )
            path.write_text(text.replace(edit.old, edit.new))
    return tree


class EventualCluster(LocalCluster):
    """Nodes that run the copy."""

    def environment(self, node: str) -> dict[str, str]:
        """What the node's process is given as its environment."""
        tree = eventual_tree(self.data_dir)
        return {**super().environment(node), **imports_from(tree)}


def imports_from(tree: Path) -> Mapping[str, str]:
    """What makes a Python import from this directory, and not from the working directory."""
    return {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
