"""The settings of a node, read once at start.

What it is: `config_from_env`. The environment name of a setting is the name of its field in upper
case (`node_id` is `NODE_ID`).

What it assumes and guarantees: this is the only reader of the environment. Every problem is found
before anything starts, and all of them are reported together, each with the name of its setting.
A security setting that this version does not have is refused, never ignored. Secrets are never
printed.

What it does not know: which settings there are, and what is a good value (`config.py`).

Where the idea is from: the twelve-factor app (settings come from the environment).
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from app.config import Config
from app.errors import StartupError
from app.settings_text import is_setting, mask, read_env_file

#: Settings of the design which this version does not have yet. They protect something, so a node
#: that ignored them would be less safe than its operator believes.
REFUSED: Final = re.compile(r"API_TOKENS|TLS_\w+")


def config_from_env(env_file: Path | None = None) -> Config:
    """The settings of the environment, and of `env_file` where the environment is silent.

    Raises StartupError that lists every problem.
    """
    file_values, problems = (
        ({}, []) if env_file is None else read_env_file(env_file, Config, REFUSED)
    )
    problems += [
        f"{name}: this version does not have this setting. It was not ignored, because it "
        "protects something; take it away to start without that protection."
        for name, value in sorted({**file_values, **os.environ}.items())
        if REFUSED.fullmatch(name.upper()) and value
    ]
    values: dict[str, Any] = {
        name.lower(): value
        for source in (file_values, os.environ)
        for name, value in source.items()
        if is_setting(name, Config)
    }
    # An empty value is what `NAME=${NAME:-}` leaves behind, so it means absent. Not so for the
    # secret: an empty one is a mistake that would leave the cluster unprotected.
    values = {name: v for name, v in values.items() if v != "" or name == "cluster_secret"}
    try:
        config = Config(**values)
        if not problems:
            return config
    except ValidationError as error:
        problems += [_problem(details, values) for details in error.errors()]
    listed = "\n".join(f"  {problem}" for problem in problems)
    raise StartupError(f"The settings cannot be used:\n{listed}")


def _problem(details: Any, values: Mapping[str, Any]) -> str:
    field = str(details["loc"][0])
    if details["type"] == "missing":
        return f"{field.upper()}: is required, and is not set"
    if details["type"] == "value_error":
        return f"{field.upper()}: {details['ctx']['error']}"
    message = str(details["msg"]).removeprefix("Input ").replace("should", "must", 1)
    if field in ("cluster_secret", "redis_url"):
        return f"{field.upper()}: {message}"
    return f"{field.upper()}: {message}, not `{mask(str(values.get(field)))}`"
