"""The settings of a node: which there are, and what is a good value.

What it is: `Config`, one frozen value with a field per setting.

What it assumes and guarantees: what a `Config` holds has been checked, each value by itself and
with the others. Secrets are never printed.

What it does not know: where the settings come from (`environment.py`), and what they are used for.

Where the idea is from: etcd raft's `Config.validate`.
"""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from app import redis_url
from app.addresses import is_node_id, parse_peers, peer_url

CLUSTER_SECRET_MIN_CHARACTERS = 16
#: What one write may add to a batch besides its value: key, dependencies, framing.
REPLICATE_SLACK_BYTES = 64 * 1024
#: Every receiver takes so many writes in one batch (wire.BATCH_WRITES_MAX), whatever its settings.
BATCH_WRITES_MAX = 10_000
#: No write has more (write.OPERATIONS_MAX), whatever the settings.
OPERATIONS_MAX = 1000

Bytes = Annotated[int, Field(ge=1, le=2**30)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Milliseconds = Annotated[int, Field(ge=1, le=86_400_000)]


class Config(BaseModel):
    """What one node was told. Raises pydantic's ValidationError where that cannot be."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True
    )

    node_id: str = Field(
        description="This node's name: 1 to 32 letters, digits, `_` or `-`. "
        "Never give one name to two nodes."
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    peers: dict[str, str] = Field(
        {},
        description="The other nodes, as `B=http://host:port,C=http://host:port`. "
        "Absent: a single node.",
    )
    advertise_url: str | None = Field(
        None,
        description="Where other nodes reach this one, as `http://host:port`: told to nodes that "
        "join later and do not have it in their `PEERS`.",
    )
    redis_url: str | None = Field(
        None,
        description="This node's own Redis (`redis://`, `rediss://` or `unix://`), or the "
        "Sentinels that know it (`redis+sentinel://host:port,host:port/service`). "
        "Absent: the node runs a redis-server of its own.",
    )
    data_dir: Path = Field(
        Path("data"), description="Where a redis-server of its own keeps data, under `NODE_ID`."
    )
    workers: int = Field(
        1, ge=1, le=64, description="Worker processes that share the port and the Redis."
    )
    fsync: Literal["always", "everysec", "trust"] = Field(
        "always",
        description="`always`: on disk before a write is answered. `everysec`: faster, but a power "
        "cut may lose the last second, and each start of Redis begins a new incarnation. `trust`: "
        "do not check, for a managed Redis that hides its configuration.",
    )
    cluster_secret: SecretStr | None = Field(
        None,
        description="Signs causal contexts and calls between nodes; the same on every node, "
        f"{CLUSTER_SECRET_MIN_CHARACTERS} characters or more. Absent: nothing is signed.",
    )
    faults: bool = Field(
        False, description="Allow `PUT /faults/{peer}`. For demonstrations and tests only."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Log this and what is more severe."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log lines for people, or one JSON object a line."
    )

    value_max_bytes: Bytes = Field(
        1024 * 1024,
        description="Bytes. Largest value; Redis and the log hold each value whole in memory.",
    )
    txn_max_operations: int = Field(
        100,
        ge=1,
        le=OPERATIONS_MAX,
        description="Operations in one transaction. Redis does nothing else while it is done.",
    )
    txn_max_bytes: Bytes = Field(
        4 * 1024 * 1024,
        description="Bytes. Largest transaction, and most that one may read.",
    )
    idempotency_max: Count = Field(
        1_000_000,
        description="Writes. So many with an Idempotency-Key are remembered, about 300 bytes each, "
        "for 24 hours; beyond that the oldest is forgotten sooner.",
    )
    batch_max_writes: int = Field(
        512,
        ge=1,
        le=BATCH_WRITES_MAX,
        description="Writes. Most that a sender puts into one batch; keeps a retry cheap.",
    )
    batch_max_bytes: Bytes = Field(
        1024 * 1024,
        description="Bytes. A sender closes a batch once it holds this much; "
        "it may pass it by one write. The keys in a part of a snapshot have no more, unless it is "
        "one key.",
    )
    compress_min_bytes: int = Field(
        0,
        ge=0,
        description="Bytes. Batches of so many and more are sent compressed, for links that are "
        "far and narrow; 0: none is.",
    )
    replicate_max_bytes: Bytes = Field(
        16 * 1024 * 1024,
        description="Bytes. Largest batch a receiver takes; more is refused with 413. At least "
        "BATCH_MAX_BYTES + 65536 + the larger one of VALUE_MAX_BYTES and TXN_MAX_BYTES, so that "
        "what peers send fits: each write, and in a snapshot or a backup each key whose siblings "
        "have no more together.",
    )
    pending_max: Count = Field(
        100_000,
        description="Writes. Most that wait in the pending buffer; "
        "beyond it peers keep them in their logs.",
    )
    deferred_max: Count = Field(
        1000,
        description="Writes. Most that may be deferred and wait at this node; more are refused "
        "with 503.",
    )
    deferred_max_bytes: Bytes = Field(
        64 * 1024 * 1024,
        description="Bytes. Most that they may have, like DEFERRED_MAX.",
    )
    log_max_entries: Count = Field(
        1_000_000,
        description="Writes. Longest log of one actor, even if a peer lacks what goes; "
        "a peer that does is sent a snapshot once it is back.",
    )
    log_max_bytes: Annotated[int, Field(ge=1, le=2**40)] = Field(
        512 * 1024 * 1024,
        description="Bytes. Most that all logs may take of Redis' memory, like LOG_MAX_ENTRIES.",
    )
    log_min_entries: int = Field(
        1000,
        ge=0,
        le=10_000_000,
        description="Writes. So many of each actor's newest stay in the log although every node "
        "has them.",
    )
    context_max_bytes: int = Field(
        8 * 1024,
        ge=64,
        le=64 * 1024,
        description="Bytes. Longest Causal-Context header; proxies commonly refuse longer ones.",
    )
    drain_max: Count = Field(
        128,
        description="Operations. One script call takes so many of a batch, and applies as many "
        "that waited, one write at least; or commits so many deferred writes. So Redis is not busy "
        "for long.",
    )
    first_start_wait_ms: Milliseconds = Field(
        10_000,
        description="Milliseconds. How long a node with an empty Redis, or after a long rest, asks "
        "silent peers what they know of it; then it takes a new incarnation, to be safe.",
    )
    heartbeat_ms: Milliseconds = Field(
        500, description="Milliseconds. An idle link carries an empty batch this often."
    )
    relay_after_ms: Milliseconds = Field(
        300,
        description="Milliseconds. How long a peer may stay behind on another node's writes "
        "before this node relays them; shorter repeats more, longer heals later.",
    )
    retry_min_ms: Milliseconds = Field(
        50, description="Milliseconds. First pause after a failed exchange; doubles each time."
    )
    retry_max_ms: Milliseconds = Field(
        1000,
        description="Milliseconds. Longest pause between tries, so a healed link is soon used.",
    )
    sweep_ms: Milliseconds = Field(
        1000,
        description="Milliseconds. How often the pending buffer is checked for what a crash "
        "left behind.",
    )
    expiry_ms: Milliseconds = Field(
        1000,
        description="Milliseconds. How often the memory of what has expired is freed. It is shown "
        "to nobody before that either.",
    )
    trim_ms: Milliseconds = Field(1000, description="Milliseconds. How often the logs are trimmed.")
    lease_ms: Milliseconds = Field(
        3000,
        description="Milliseconds. How long a dead worker's peers wait for another sender. "
        "Longer than HEARTBEAT_MS.",
    )
    peer_timeout_ms: Milliseconds = Field(
        10_000,
        description="Milliseconds. An exchange with a peer that takes longer is retried, with half "
        "as much in a batch. One write has twice the time then, up to 10 minutes.",
    )
    watchers_max: Count = Field(
        200,
        description="Watchers. Most that one worker tells of writes at a time; more are refused, "
        "and find another node.",
    )
    watch_keepalive_ms: Annotated[int, Field(ge=100, le=20_000)] = Field(
        10_000,
        description="Milliseconds. A watcher that nothing is told hears this often that it is "
        "still told all there is; proxies cut connections that are silent for a minute.",
    )
    watch_stall_ms: Milliseconds = Field(
        10_000,
        description="Milliseconds. A watcher that reads nothing for so long is given up; it may "
        "go on later.",
    )
    backup_stall_ms: Milliseconds = Field(
        60_000,
        description="Milliseconds. A backup is broken off if its client reads nothing for so long; "
        "until then nobody else can have one.",
    )
    redis_timeout_ms: Milliseconds = Field(
        5000,
        description="Milliseconds. A Redis that answers no sooner counts as unavailable.",
    )
    shutdown_grace_ms: Milliseconds = Field(
        5000, description="Milliseconds. How long requests in flight may take after SIGTERM."
    )

    def to_json(self) -> str:
        """Everything, secrets included, in one line: for a worker's stdin and nowhere else."""
        secret = None if self.cluster_secret is None else self.cluster_secret.get_secret_value()
        return json.dumps({**self.model_dump(mode="json"), "cluster_secret": secret})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """What `to_json` wrote."""
        return cls(**json.loads(text))

    @field_validator("log_level", "log_format", "fsync", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("node_id")
    @classmethod
    def _is_node_id(cls, value: str) -> str:
        if not is_node_id(value):
            raise ValueError(
                "must be 1 to 32 letters, digits, `_` or `-`, and begin with a letter or digit"
            )
        return value

    @field_validator("peers", mode="before")
    @classmethod
    def _parse_peers(cls, value: object) -> object:
        return parse_peers(value) if isinstance(value, str) else value

    @field_validator("peers")
    @classmethod
    def _are_peers(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        checked: dict[str, str] = {}
        for node, url in value.items():
            if not is_node_id(node):
                raise ValueError(f"`{node}` is not a node id")
            if node == info.data.get("node_id"):
                raise ValueError(f"names this node itself (`{node}`); list only the others")
            if (url := peer_url(node, url)) in checked.values():
                raise ValueError(f"`{node}` has the same URL as another node: {url}")
            checked[node] = url
        return checked

    @field_validator("advertise_url")
    @classmethod
    def _is_a_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else peer_url(info.data.get("node_id", "this node"), value)

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, value: str | None) -> str | None:
        if value is not None:
            redis_url.check(value)
        return value

    @field_validator("cluster_secret")
    @classmethod
    def _is_strong(cls, value: SecretStr | None) -> SecretStr | None:
        secret = None if value is None else value.get_secret_value()
        if secret is not None and len(secret) < CLUSTER_SECRET_MIN_CHARACTERS:
            raise ValueError(
                f"must have {CLUSTER_SECRET_MIN_CHARACTERS} characters or more, not {len(secret)}"
            )
        if secret is not None and secret != secret.strip():
            raise ValueError(
                "begins or ends with white space, which is easily lost on another node"
            )
        return value

    @field_validator("replicate_max_bytes")
    @classmethod
    def _takes_what_peers_send(cls, value: int, info: ValidationInfo) -> int:
        one, other = info.data.get("value_max_bytes"), info.data.get("txn_max_bytes")
        batch = info.data.get("batch_max_bytes")
        if not (batch and one and other):
            return value
        if value < (least := batch + max(one, other) + REPLICATE_SLACK_BYTES):
            raise ValueError(
                f"must be at least BATCH_MAX_BYTES + {REPLICATE_SLACK_BYTES} + the larger one of "
                f"VALUE_MAX_BYTES and TXN_MAX_BYTES, which is {least}"
            )
        return value

    @field_validator("retry_max_ms")
    @classmethod
    def _not_below_retry_min(cls, value: int, info: ValidationInfo) -> int:
        if value < (least := info.data.get("retry_min_ms", 0)):
            raise ValueError(f"must not be less than RETRY_MIN_MS, which is {least}")
        return value

    @field_validator("lease_ms")
    @classmethod
    def _outlasts_heartbeat(cls, value: int, info: ValidationInfo) -> int:
        if value <= (heartbeat := info.data.get("heartbeat_ms", 0)):
            raise ValueError(f"must be more than HEARTBEAT_MS, which is {heartbeat}")
        return value
