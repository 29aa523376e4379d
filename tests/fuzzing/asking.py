"""How schemathesis asks a node: what it cannot know of itself.

What it is: hooks, which it finds by their names (tests/fuzzing/test_contract.py).

What it assumes and guarantees: nobody waits for what never comes, and the node is not removed. What
it does not know: what is asked.
"""

import json
import re
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, SerializationContext


@schemathesis.serializer("application/vnd.msgpack", "application/vnd.lightcone.backup", "*/*")
def as_bytes(context: SerializationContext, value: Any) -> bytes:
    """Anything. What is nearly a batch or a backup, other tests send."""
    return json.dumps(value).encode()


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Where the patience is good, it is short; and the node stays a member, to go on answering."""
    wait = str(case.query.get("wait"))
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", wait) and float(wait) <= 30:
        case.query["wait"] = 0.01
    if case.path_parameters.get("id") == "A":
        case.path_parameters["id"] = "D"
