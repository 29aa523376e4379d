"""Reaching a peer: one exchange of a batch for an answer, over HTTP.

Assumes a URL and, where the cluster has one, its secret. Guarantees that what comes back is the
answer of the peer that was meant, or a `PeerError` that says why not.

Does not know what is in a batch, when to send one, or how often to try.
"""

import hashlib
import hmac
from typing import Final, Protocol

import aiohttp
import msgspec

from app import wire
from app.errors import BadBatch, BadSignature, LightconeError
from app.wire import Answer, Batch

SIGNATURE_HEADER: Final = "Cluster-Signature"
_ANSWER_MAX_BYTES: Final = 1024 * 1024
"""An answer holds three clocks: this is room for ten thousand actors."""


class PeerError(LightconeError):
    """An exchange failed; whether the peer took the batch is not known, and need not be."""


class PeerUnreachable(PeerError):
    """The peer did not answer: down, cut off, or too slow."""


class PeerRefused(PeerError):
    """The peer answered, and did not take the batch: the message says why."""


class Exchange(Protocol):
    """One way to bring a batch to the peer at `url`."""

    async def __call__(self, url: str, batch: Batch) -> Answer:
        """The peer's answer. Raises PeerError."""
        ...


class Signer:
    """Proves to other nodes that a message is of this cluster; without a secret, nothing."""

    def __init__(self, secret: str | None) -> None:
        self._key = None if secret is None else secret.encode()

    def headers(self, body: bytes) -> dict[str, str]:
        """What to send along with `body`."""
        return {} if self._key is None else {SIGNATURE_HEADER: self._signature(body)}

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


class HttpExchange:
    """Exchanges over HTTP: `POST /replicate`."""

    def __init__(self, session: aiohttp.ClientSession, signer: Signer, timeout_ms: int) -> None:
        self._session = session
        self._signer = signer
        self._timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)

    async def __call__(self, url: str, batch: Batch) -> Answer:
        body = wire.encode_batch(batch)
        try:
            async with self._session.post(
                f"{url}/replicate",
                data=body,
                headers={"Content-Type": wire.CONTENT_TYPE, **self._signer.headers(body)},
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                reply = await _read(response)
                if response.status != 200:
                    raise PeerRefused(_why(response.status, reply))
                self._signer.check(reply, response.headers.get(SIGNATURE_HEADER))
                answer = wire.decode_answer(reply)
        except (BadBatch, BadSignature) as error:
            raise PeerRefused(error.detail) from None
        except TimeoutError:
            raise PeerUnreachable(f"no answer within {self._timeout.total:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise PeerUnreachable(str(error) or type(error).__name__) from error
        if answer.node != batch.receiver:
            raise PeerRefused(
                f"the node at {url} is {answer.node}, and PEERS says that it is {batch.receiver}"
            )
        return answer


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _ANSWER_MAX_BYTES:
            raise PeerRefused(f"an answer of more than {_ANSWER_MAX_BYTES} bytes is none of ours")
    return bytes(body)


def _why(status: int, reply: bytes) -> str:
    try:
        detail = msgspec.json.decode(reply, type=dict[str, object]).get("detail")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        detail = None
    return f"it answered {status}: {detail or 'and gave no reason'}"
