"""What the node promises to whoever asks it: each route, what it takes, and how it is answered.

Assumes nothing. Guarantees nothing alone: `interface.py` serves what is declared here and nothing
else, and all tests of the interface look whether an answer was declared (tests/one_node.py).

Does not know how a request is served, nor how the promise is written down (`openapi.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from app import errors, shapes
from app.errors import RequestError
from app.write import KEY_MAX_BYTES, TTL_MAX_S

JSON: Final = "application/json"
BYTES: Final = "*/*"

Schema = Mapping[str, Any]
Place = Literal["path", "query", "header"]
Problems = tuple[type[RequestError], ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a request or an answer carries beside its body; `schema` is JSON Schema."""

    place: Place
    name: str
    about: str
    schema: Schema
    example: Any
    always: bool = False

    @property
    def sometimes(self) -> "Parameter":
        """The same where it is not always there."""
        return replace(self, always=False)


@dataclass(frozen=True, slots=True)
class Content:
    """A body: JSON of this `shape`, which is a type, or any bytes without one.

    Where the media type is BYTES, it is of the shape or any bytes.
    """

    media_type: str
    shape: Any = None
    example: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no problem."""

    status: int
    about: str
    content: Content | None = None
    headers: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path. `name` is what programs call it by, `about` is for people: what is
    answered, or true afterwards. With `head`, HEAD is answered as well.
    """

    name: str
    method: Literal["GET", "PUT", "POST", "DELETE"]
    path: str
    group: str
    about: str
    answers: tuple[Answer, ...]
    problems: Problems = ()
    parameters: tuple[Parameter, ...] = ()
    body: Content | None = None
    head: bool = False

    @property
    def is_open_to_pages(self) -> bool:
        """Whether a browser sends it for a page of any site without asking first, and it is to
        change something: POST, and what opens a WebSocket."""
        return self.method == "POST" or any(answer.status == 101 for answer in self.answers)

    @property
    def refusals(self) -> Problems:
        """All problems that it may have."""
        from_pages = (errors.CrossOrigin,) if self.is_open_to_pages else ()
        return (*EVERYWHERE, *from_pages, *self.problems)

    @property
    def query(self) -> list[str]:
        """The names of all that may stand in the query."""
        return [one.name for one in self.parameters if one.place == "query"]


# --- what many requests have in common ------------------------------------------------------------

#: Of every request: what came is not HTTP, or has something in its query that is not declared.
EVERYWHERE: Final[Problems] = (errors.BadHttp, errors.BadParameter)
IN_SESSION: Final[Problems] = (
    *(errors.BadContext, errors.ForeignContext, errors.TooLarge),
    *(errors.NotCaughtUp, errors.Lost, errors.RedisUnavailable),
)
READING: Final[Problems] = (*IN_SESSION, errors.NodeRemoved, errors.Syncing)
WRITING: Final[Problems] = (
    *(*READING, errors.NotReady, errors.PreconditionFailed, errors.UnsupportedHeader),
    *(errors.IdempotencyKeyReused, errors.ReplicasMissing),
)
#: Of writes that may be deferred.
DEFERRING: Final[Problems] = (errors.UnknownWrites, errors.DeferredFull)
WITH_BODY: Final[Problems] = (errors.TooLarge, errors.UnsupportedEncoding)

_TEXT: Final = {"type": "string"}
_FLAG: Final = {"type": "boolean", "default": False}

KEY: Final = Parameter(
    "path",
    "key",
    "The key: 1 to 512 bytes of UTF-8, percent-encoded; slashes may be encoded or not. Those that "
    "begin with NUL are the system's.",
    {"type": "string", "minLength": 1, "maxLength": KEY_MAX_BYTES, "pattern": "^[^\\x00]"},
    "lunch",
    always=True,
)
CONTEXT: Final = Parameter(
    "header",
    "Causal-Context",
    "What the client has seen: tokens as nodes gave them, with commas between them. The node "
    "answers from a state that includes all of it.",
    _TEXT,
    "lc1;A:1",
)
SEEN: Final = Parameter(
    "header",
    "Causal-Context",
    "What the client has seen now, to be sent with its next request, to whichever node.",
    _TEXT,
    "lc1;A:2",
    always=True,
)
WAIT: Final = Parameter(
    "query",
    "wait",
    "Seconds that the node may wait until it has what the context asks for, or until `replicas` "
    "hold the write.",
    {"type": "number", "minimum": 0, "maximum": 30, "default": 1},
    5,
)
STALE: Final = Parameter(
    "query", "stale", "Answer at once, from what is here. Not together with `wait`.", _FLAG, False
)
IS_STALE: Final = Parameter(
    "header",
    "Stale",
    "`true`, if this node lacks some of what the context asks for. Then the answer is no part of "
    "the session, and `Causal-Context` is that of the request.",
    {"const": "true"},
    "true",
)
REPLICAS: Final = Parameter(
    "query",
    "replicas",
    "Answer when so many nodes, this one included, hold the write durably. No more than there are.",
    {"type": "integer", "minimum": 1, "default": 1},
    2,
)
HELD_BY: Final = Parameter(
    "header", "Replicas", "The nodes that hold the write, if `replicas` asked.", _TEXT, "A, B"
)
IDEMPOTENCY_KEY: Final = Parameter(
    "header",
    "Idempotency-Key",
    "New for every request: repeated with it, at the same node and within 24 hours, a request is "
    "not done again and gets the same answer.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "5f0c0f2e-6a0b-4c1e-9a7e-1f1d3a0c8b11",
)
REPLAYED: Final = Parameter(
    "header",
    "Idempotent-Replayed",
    "`true`, if the request was done before.",
    {"const": "true"},
    "true",
)
PREFER: Final = Parameter(
    "header",
    "Prefer",
    "`respond-async`: if the node lacks what the context asks for, accept the write now and do it "
    "once that has come (202). `wait=` seconds, or the parameter `wait`, may pass before that; "
    "none without them. Not heeded together with conditions, reads or `replicas`.",
    _TEXT,
    "respond-async",
)
APPLIED: Final = Parameter(
    "header",
    "Preference-Applied",
    "That the write is deferred.",
    {"const": "respond-async"},
    "respond-async",
    always=True,
)
IF_MATCH: Final = Parameter(
    "header",
    "If-Match",
    "Only if the key has just the versions that one of these ETags names; `*`: if it has some.",
    _TEXT,
    '"A:4,B:2"',
)
IF_NONE_MATCH: Final = Parameter(
    "header",
    "If-None-Match",
    "`*`: only if the key has no version at this node.",
    _TEXT,
    "*",
)
IS_KNOWN: Final = Parameter(
    "header",
    "If-None-Match",
    "What the client has already: 304, if that is what is here.",
    _TEXT,
    '"A:4,B:2"',
)
ETAG: Final = Parameter(
    "header",
    "ETag",
    "Strong, and another whenever the set of siblings is: it names them.",
    {"type": "string", "pattern": '^".+"$'},
    '"A:4,B:2"',
    always=True,
)
TTL: Final = Parameter(
    "query",
    "ttl",
    "Seconds that the value lives, by the hybrid logical clock. Without it, it lives for ever, "
    "whatever was there before.",
    {"type": "number", "exclusiveMinimum": 0, "maximum": TTL_MAX_S},
    60,
)
EXPIRES: Final = Parameter(
    "header",
    "Expires",
    "When the value expires, rounded down to seconds, if it does.",
    _TEXT,
    "Sun, 22 Nov 2026 13:36:03 GMT",
)
DOT: Final = Parameter("header", "Dot", "The name of the write.", _TEXT, "A:2", always=True)

#: What the answers to all writes have in their heads.
WRITTEN: Final = (SEEN, DOT, HELD_BY, REPLAYED)

DEFERRED: Final = Answer(
    202,
    "It is accepted, durably, and is done once `waiting_for` has come: then it is seen, here and "
    "everywhere. Who sends the context sees it.",
    Content(JSON, shapes.Deferred, {"dot": "C+:1", "waiting_for": ["A:2"]}),
    (SEEN, DOT, APPLIED, REPLAYED),
)

HEADERS: Final[Mapping[type[RequestError], tuple[Parameter, ...]]] = {
    errors.NoSuchKey: (SEEN, IS_STALE),
    errors.PreconditionFailed: (SEEN, ETAG.sometimes),
    errors.Lost: (SEEN,),
    errors.ReplicasMissing: (SEEN, DOT, REPLAYED),
    errors.TooFarBack: (SEEN,),
}
"""What comes in the head of some problems. No other has a context: a client keeps what it has."""
