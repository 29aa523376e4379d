"""Reaching a peer: one exchange of a batch for an answer.

Assumes a way to carry bytes there and back (`carriers.py`), and, where the cluster has one, its
secret. Guarantees that what comes back is the answer of the peer that was meant, or a `PeerError`
that says why not.

Does not know what is in a batch, when to send one, or how often to try.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

import msgspec

from app import compression, wire
from app.carriers import SIGNATURE_HEADER, Carry, SignedAnswer, SignedBatch
from app.errors import (
    BadBatch,
    BadSignature,
    PeerError,
    PeerRefused,
    PeerTakesLess,
    PeerTooSlow,
    PeerUnreachable,
)
from app.incarnation import former
from app.patience import Patience
from app.vector_clock import NOTHING, VectorClock
from app.wire import Answer, Batch

OTHER_BASE: Final = "urn:lightcone:other-base"
_TOO_LARGE: Final = 413
"""The node says so, or a proxy before it."""


class Exchange(Protocol):
    """One way to bring a batch to the peer at `url`."""

    async def __call__(self, url: str, batch: Batch) -> Answer:
        """The peer's answer. Raises PeerError."""
        ...


class Signer:
    """Proves to other nodes that a message is of this cluster; without a secret, nothing."""

    def __init__(self, secret: str | None) -> None:
        self._key = None if secret is None else secret.encode()

    def signature(self, body: bytes) -> str | None:
        """What to send along with `body`."""
        return None if self._key is None else self._signature(body)

    def check(self, body: bytes, signature: str | None) -> None:
        """Whoever sent `body` with `signature` knows the secret.

        A message may be sent again by somebody who has seen it: the receiver of a batch takes
        repeats for what they are (G2).

        Raises BadSignature.
        """
        if self._key is None:
            if signature is not None:
                raise BadSignature(
                    "The call is signed, and this node has no CLUSTER_SECRET. Nothing was applied. "
                    "Give all nodes the same."
                )
        elif not hmac.compare_digest(
            (signature or "").encode(errors="surrogatepass"), self._signature(body).encode()
        ):
            raise BadSignature(
                f"The call's {SIGNATURE_HEADER} is not of this cluster's CLUSTER_SECRET. Nothing "
                "was applied. Give all nodes the same."
            )

    def _signature(self, body: bytes) -> str:
        assert self._key is not None
        return hmac.new(self._key, b"replicate" + body, hashlib.sha256).hexdigest()


class OtherBaseError(Exception):
    """The peer does not hold the base that a batch was said from."""


class Bases:
    """What one node takes each peer to hold of former incarnations, so as not to say it again.

    It is what the peer had when it answered last. Guarantees that a peer that has something else
    meanwhile is told everything.
    """

    def __init__(self) -> None:
        self._of: dict[str, VectorClock] = {}

    async def exchange(self, batch: Batch, post: Callable[[bytes], Awaitable[bytes]]) -> Answer:
        """The answer to the batch, which `post` brings to the peer.

        Raises BadBatch, and what `post` does, except OtherBaseError.
        """
        base = self._of.get(batch.receiver, NOTHING)
        try:
            reply = await post(wire.encode_batch(replace(batch, base=base)))
        except OtherBaseError:
            base = NOTHING
            reply = await post(wire.encode_batch(batch))
        answer = wire.decode_answer(reply, base)
        self._of[batch.receiver] = former(answer.clock)
        return answer


def raise_for(status: int, reply: bytes) -> None:
    """The peer took the batch. Raises OtherBaseError, PeerRefused, PeerTakesLess."""
    if status == 200:
        return
    kind, why = _problem(reply)
    if kind == OTHER_BASE:
        raise OtherBaseError
    refused = PeerTakesLess if status == _TOO_LARGE else PeerRefused
    raise refused(f"it answered {status}: {why or 'and gave no reason'}")


class PeerExchange:
    """Exchanges that are signed and checked, over whatever carries them."""

    def __init__(
        self, carry: Carry, signer: Signer, timeout_ms: int, compress_min_bytes: int = 0
    ) -> None:
        """Batches of `compress_min_bytes` and more are compressed; with 0 none is."""
        self._carry = carry
        self._signer = signer
        self._patience = Patience(timeout_ms / 1000, asyncio.get_running_loop().time)
        self._compress_min_bytes = compress_min_bytes
        self._bases = Bases()

    async def __call__(self, url: str, batch: Batch) -> Answer:
        try:
            answer = await self._bases.exchange(batch, partial(self._send, url, batch))
        except (BadBatch, BadSignature) as error:
            raise PeerRefused(error.detail) from None
        if answer.node != batch.receiver:
            raise PeerRefused(
                f"the node at {url} is {answer.node}, and PEERS says that it is {batch.receiver}"
            )
        return answer

    async def _send(self, url: str, batch: Batch, body: bytes) -> bytes:
        compressed = 0 < self._compress_min_bytes <= len(body)
        if compressed:
            body = compression.packed(body)
        signed = SignedBatch(body, self._signer.signature(body), compressed)
        answer = await self._carried(url, batch, signed)
        raise_for(answer.status, answer.body)
        self._signer.check(answer.body, answer.signature)
        return answer.body

    async def _carried(self, url: str, batch: Batch, signed: SignedBatch) -> SignedAnswer:
        """What came back. Raises PeerError."""
        try:
            with self._patience.waiting(batch) as timeout_s:
                return await self._carry(url, signed, timeout_s)
        except PeerError:
            raise
        except TimeoutError as error:
            raise PeerTooSlow(str(error)) from None
        except Exception as error:
            # Whatever it is: a URL may be what some other node has said, unchecked, and where it is
            # none, aiohttp and who looks up its host raise UnicodeError, IndexError and others.
            raise PeerUnreachable(str(error) or type(error).__name__) from error


def _problem(reply: bytes) -> tuple[str, str]:
    """The type and the detail of a problem; empty for what is none."""
    try:
        said = msgspec.json.decode(reply, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return "", ""
    return str(said.get("type") or ""), str(said.get("detail") or "")
