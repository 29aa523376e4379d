"""Settings as people write and read them: files, names that are nearly right, the table of all.

What it is: the functions around `Config` that work for any set of settings.

What it assumes and guarantees: a setting's name is its field's name in upper case; upper and lower
case count as the same. A line of a settings file that cannot be used is reported, never skipped.

What it does not know: which settings there are, and what is a good value.

Where the idea is from: git and cargo, which say what was probably meant.
"""

import difflib
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dotenv.parser import parse_stream
from pydantic import BaseModel

_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")
#: How much of a name must be right. Found by trying: it takes PEER for PEERS and REDIS_URI for
#: REDIS_URL, and leaves POST, HOSTNAME and NODE_PATH alone.
_SIMILARITY = 0.85


class Setting(NamedTuple):
    """One row of the table of settings."""

    name: str
    default: str
    description: str


def list_settings(model: type[BaseModel]) -> list[Setting]:
    """Every setting there is, in the order in which `model` declares them."""
    return [
        Setting(
            name.upper(),
            "required" if field.is_required() else _as_env(field.default),
            field.description or "",
        )
        for name, field in model.model_fields.items()
    ]


def settings_table(model: type[BaseModel], width: int = 100) -> str:
    """Every setting as text for a terminal."""
    rows = list_settings(model)
    names = max(len(row.name) for row in rows)
    defaults = max(len(row.default) for row in rows)
    return "\n".join(
        textwrap.fill(
            row.description,
            width,
            initial_indent=f"{row.name:{names}}  {row.default:{defaults}}  ",
            subsequent_indent=" " * (names + defaults + 4),
        )
        for row in rows
    )


def is_setting(name: str, model: type[BaseModel]) -> bool:
    """Whether `name`, in any case, is the name of a setting."""
    return name.lower() in model.model_fields


def probable_mistakes(environ: Mapping[str, str], model: type[BaseModel]) -> list[str]:
    """One sentence for each variable that is nearly, but not quite, the name of a setting.

    It is not refused, for the environment belongs to other programs, too.
    """
    return [
        f"{name} is set, but is no setting of a node. Was {meant} meant?"
        for name in sorted(environ)
        if not is_setting(name, model) and (meant := _nearest(name, model))
    ]


def read_env_file(
    path: Path, model: type[BaseModel], known: re.Pattern[str]
) -> tuple[dict[str, str], list[str]]:
    """The names and values in a file of `NAME=value` lines, and what is wrong with it.

    Names that match `known` are taken over though they are no setting, for the caller to judge.
    """
    values: dict[str, str] = {}
    problems: list[str] = []
    try:
        with path.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except (OSError, UnicodeError) as error:
        return {}, [f"--env-file {path}: cannot be read: {error}"]
    for binding in bindings:
        name, value, line = binding.key, binding.value, f"{path}, line {binding.original.line}"
        if binding.error or (name is not None and value is None):
            problems.append(f"{line}: is not of the form NAME=value")
        elif name is not None and value is not None:
            if name in values:
                problems.append(f"{name}: is set twice ({line})")
            elif not is_setting(name, model) and not known.fullmatch(name.upper()):
                hint = f" Was {meant} meant?" if (meant := _nearest(name, model)) else ""
                problems.append(f"{name}: is no setting of a node ({line}).{hint}")
            values[name] = value
    return values, problems


def mask(text: str) -> str:
    """`text` without the passwords of the URLs in it."""
    return _PASSWORD_IN_URL.sub("***", text)


def _nearest(name: str, model: type[BaseModel]) -> str | None:
    ours = {field.upper().replace("_", ""): field.upper() for field in model.model_fields}
    near = difflib.get_close_matches(name.upper().replace("_", ""), ours, n=1, cutoff=_SIMILARITY)
    return ours[near[0]] if near else None


def _as_env(default: object) -> str:
    if default is None or default == {}:
        return "-"
    return str(int(default)) if isinstance(default, bool) else str(default)
