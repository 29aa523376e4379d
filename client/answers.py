"""What nodes answer, as values.

What it is: `Written`, `Version` and others, which are about keys, and the functions that turn an
`Answer` into one of them, or into one of the shapes of what a node says of itself.

What it assumes and guarantees: an answer that lacks something, or has something else in its place,
raises one of STRANGE here, and never passes as half a value. What a node says of itself is handed
on as it came.

What it does not know: how an answer came, and what to do when it is not understood.

Where the idea is from: the HTTP interface of the nodes, word for word.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any, cast

from client.context import HEADER
from client.shapes import Conflict, Explanation, Fault, Member, Pending, Status

#: The status of an answer to a write that the node will do.
ACCEPTED = 202

#: What is raised where an answer is read that no node gives.
STRANGE = (AttributeError, LookupError, OverflowError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, read to its end. `node` is the URL of the node that gave it."""

    node: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises ValueError when it is none."""
        return json_object(self.body)


@dataclass(frozen=True, slots=True)
class Written:
    """A write that took effect. `clock` is the node's clock just after it, `node` its URL.

    `etag` is that of the key since. `replicas` are the ids of the nodes that hold it, where it was
    asked for. `expires` is when it will be gone, in microseconds since 1970, rounded down to
    seconds; None for never. If it is `deferred`, the node will do it, and then everybody sees it,
    once what it is `waiting_for` has come there; clock and ETag are empty then.
    """

    key: str
    dot: str
    clock: Mapping[str, int]
    node: str
    etag: str = ""
    replicas: tuple[str, ...] = ()
    expires: int | None = None
    deferred: bool = False
    waiting_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deleted:
    """A delete that took effect: `dot` is the name of it, `node` the URL of the node that did it.

    The rest is as for `Written`.
    """

    key: str
    dot: str
    node: str
    replicas: tuple[str, ...] = ()
    deferred: bool = False
    waiting_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key. `siblings` counts the versions side by side, this one included.

    `etag` names all of them; `node` is the URL of the node that served the read. `stale` says that
    the node lacked some of what the session has seen. `expires` is when it will be gone, in
    microseconds since 1970, None for never; where it comes without its siblings, that is rounded
    down to seconds.
    """

    key: str
    value: bytes
    content_type: str
    dot: str
    etag: str
    siblings: int
    node: str
    stale: bool = False
    expires: int | None = None

    @property
    def text(self) -> str:
        """The value as text, in the charset of its content type, or else in UTF-8.

        Raises ValueError when the value is not text of that charset.
        """
        return text_of(self.value, self.content_type)


@dataclass(frozen=True, slots=True)
class Transacted:
    """A transaction that was done. `dot` is the name of its write, None if it wrote nothing;
    `etags` are those of the keys it put, and `expires` says of those that will be gone, when, in
    microseconds since 1970; `read` has all versions of each key it got, winner first.

    The rest is as for `Written`.
    """

    dot: str | None
    clock: Mapping[str, int]
    node: str
    etags: Mapping[str, str]
    read: Mapping[str, list[Version]]
    replicas: tuple[str, ...] = ()
    expires: Mapping[str, int] = field(default_factory=dict)
    deferred: bool = False
    waiting_for: tuple[str, ...] = ()

    def winner(self, key: str) -> Version | None:
        """The winner among the versions of a key that was got, or None when it had none.

        Raises KeyError for a key that was not got.
        """
        return next(iter(self.read[key]), None)


@dataclass(frozen=True, slots=True)
class Declared:
    """What was declared lost: of each actor here, all writes after this one. Empty, if all of it
    was so before. `clock` is the clock of the node just after it, `node` its URL.

    `context` is a token of who has seen that.
    """

    lost: Mapping[str, int]
    clock: Mapping[str, int]
    node: str
    context: str


def json_object(text: bytes | str) -> dict[str, Any]:
    """The JSON object in a text. Raises ValueError when it is none."""
    try:
        read = json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None
    if not isinstance(read, dict):
        raise ValueError("not a JSON object")
    return read


def text_of(value: bytes, content_type: str) -> str:
    """The value as text. Raises ValueError when it is not text of the charset of its type."""
    header = Message()
    header["Content-Type"] = content_type
    charset = header.get_param("charset", "utf-8")
    try:
        return value.decode(str(charset))
    except LookupError:
        raise ValueError(f"unknown charset in {content_type!r}") from None


def written(key: str, answer: Answer) -> Written:
    """The answer to a put."""
    said = answer.json()
    if answer.status == ACCEPTED:
        waits = _waiting_for(said)
        return Written(key, str(said["dot"]), {}, answer.node, deferred=True, waiting_for=waits)
    return Written(
        str(said["key"]),
        str(said["dot"]),
        _clock(said["clock"]),
        answer.node,
        answer.headers.get("ETag", ""),
        _replicas(answer),
        _expires(answer),
    )


def deleted(key: str, answer: Answer) -> Deleted:
    """The answer to a delete."""
    if answer.status == ACCEPTED:
        said = answer.json()
        return Deleted(
            key, str(said["dot"]), answer.node, deferred=True, waiting_for=_waiting_for(said)
        )
    return Deleted(key, answer.headers["Dot"], answer.node, _replicas(answer))


def version(key: str, answer: Answer) -> Version | None:
    """The answer to a get: the winner, or None when the key has no version there."""
    if answer.status == 404:
        return None
    return Version(
        key=key,
        value=answer.body,
        content_type=answer.headers["Content-Type"],
        dot=answer.headers["Dot"],
        etag=answer.headers["ETag"],
        siblings=int(answer.headers["Siblings"]),
        node=answer.node,
        stale=_is_stale(answer),
        expires=_expires(answer),
    )


def versions(key: str, answer: Answer) -> list[Version]:
    """The answer to a get with all siblings, the winner first."""
    if answer.status == 404:
        return []
    shown = answer.json()["siblings"]
    return shown_versions(key, shown, answer.headers["ETag"], answer.node, _is_stale(answer))


def transacted(answer: Answer) -> Transacted:
    """The answer to a transaction."""
    said = answer.json()
    if answer.status == ACCEPTED:
        waits, dot = _waiting_for(said), str(said["dot"])
        return Transacted(dot, {}, answer.node, {}, {}, deferred=True, waiting_for=waits)
    results = said["results"]
    return Transacted(
        dot=None if said["dot"] is None else str(said["dot"]),
        clock=_clock(said["clock"]),
        node=answer.node,
        etags={str(one["put"]): str(one["etag"]) for one in results if "put" in one},
        read={
            str(one["get"]): shown_versions(
                one["get"], one["siblings"], one["etag"] or "", answer.node, _is_stale(answer)
            )
            for one in results
            if "get" in one
        },
        replicas=_replicas(answer),
        expires={str(one["put"]): int(one["expires"]) for one in results if "expires" in one},
    )


def keys(answer: Answer) -> tuple[list[str], str | None]:
    """A page of keys, and the cursor for the next one."""
    said = answer.json()
    return [str(key) for key in said["keys"]], said["cursor"]


def conflicts(answer: Answer) -> tuple[list[Conflict], str | None]:
    """A page of keys with siblings, and the cursor for the next one."""
    said = answer.json()
    return cast(list[Conflict], list(said["keys"])), said["cursor"]


def explanation(answer: Answer) -> Explanation:
    """The answer to the question why a key holds what it holds."""
    return cast(Explanation, answer.json())


def status(answer: Answer) -> Status:
    """The answer to a question for the status."""
    return cast(Status, answer.json())


def pending(answer: Answer) -> Pending:
    """The answer to a question for the pending buffer."""
    return cast(Pending, answer.json())


def members(answer: Answer) -> list[Member]:
    """The answer to a question for the members."""
    return cast(list[Member], answer.json()["members"])


def member(answer: Answer) -> Member:
    """The answer to a member that was added."""
    return cast(Member, answer.json())


def declared(answer: Answer) -> Declared:
    """The answer to a declaration of what is lost."""
    said = answer.json()
    lost = {str(one["actor"]): int(one["after"]) for one in said["lost"]}
    return Declared(lost, _clock(said["clock"]), answer.node, answer.headers[HEADER])


def fault(answer: Answer) -> Fault:
    """The answer to a fault that was set."""
    return cast(Fault, answer.json())


def nothing(answer: Answer) -> None:
    """An answer that says no more than that it is done."""


def shown_value(sibling: Mapping[str, Any]) -> bytes:
    """The value in what a node shows of a version or a put."""
    if "text" in sibling:
        return str(sibling["text"]).encode()
    return base64.b64decode(sibling["base64"], validate=True)


def shown_expiry(shown: Mapping[str, Any]) -> int | None:
    """When that expires which a node shows, in microseconds since 1970; None for never."""
    return int(shown["expires"]) if "expires" in shown else None


def shown_versions(
    key: str,
    siblings: Sequence[Mapping[str, Any]],
    etag: str,
    node: str,
    stale: bool = False,
) -> list[Version]:
    """Versions that stand side by side, as a node at this URL shows them."""
    return [
        Version(
            key=key,
            value=shown_value(sibling),
            content_type=str(sibling["content_type"]),
            dot=str(sibling["dot"]),
            etag=etag,
            siblings=len(siblings),
            node=node,
            stale=stale,
            expires=shown_expiry(sibling),
        )
        for sibling in siblings
    ]


def _clock(said: Mapping[str, Any]) -> dict[str, int]:
    return {str(actor): int(sequence) for actor, sequence in said.items()}


def _expires(answer: Answer) -> int | None:
    """When the value expires, in microseconds since 1970; None for never."""
    date = answer.headers.get("Expires")
    return None if date is None else round(parsedate_to_datetime(date).timestamp()) * 1_000_000


def _replicas(answer: Answer) -> tuple[str, ...]:
    return tuple(filter(None, answer.headers.get("Replicas", "").split(", ")))


def _waiting_for(said: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, said["waiting_for"]))


def _is_stale(answer: Answer) -> bool:
    return answer.headers.get("Stale") == "true"
