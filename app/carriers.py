"""How batches and their answers travel as bytes, and one of the ways: a request for each.

Assumes a URL. Guarantees that what comes back is what came from there, whatever it is, or that it
is raised why nothing came.

Does not know what the bytes say, nor who may send them. The other way is in `websockets.py`.
"""

from typing import Final, Protocol

import aiohttp
import msgspec

from app import compression, wire
from app.errors import PeerRefused

SIGNATURE_HEADER: Final = "Cluster-Signature"
ANSWER_MAX_BYTES: Final = 1024 * 1024
"""An answer holds three clocks: this is room for ten thousand actors."""


class SignedBatch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A batch as it travels: its bytes, and their signature, where the cluster has a secret."""

    body: bytes
    signature: str | None = None
    compressed: bool = False


class SignedAnswer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What came back for a batch: an answer, with 200, or a problem, with what it is in HTTP."""

    status: int
    body: bytes
    signature: str | None = None


class Carry(Protocol):
    """One way to bring a batch to the node at `url`."""

    async def __call__(self, url: str, batch: SignedBatch, timeout_s: float) -> SignedAnswer:
        """What the node answered.

        Raises PeerRefused; TimeoutError, ClientError, OSError if nothing came; for what is no URL,
        anything.
        """
        ...


def signed_with(signature: str | None) -> dict[str, str]:
    """The headers that a signed body goes with."""
    return {} if signature is None else {SIGNATURE_HEADER: signature}


def too_long() -> PeerRefused:
    """What came back cannot be an answer."""
    return PeerRefused(f"an answer of more than {ANSWER_MAX_BYTES} bytes is none of ours")


class Posts:
    """Each batch is a request: `POST /replicate`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, url: str, batch: SignedBatch, timeout_s: float) -> SignedAnswer:
        headers = {"Content-Type": wire.CONTENT_TYPE, **signed_with(batch.signature)}
        if batch.compressed:
            headers["Content-Encoding"] = compression.ENCODING
        async with self._session.post(
            f"{url}/replicate",
            data=batch.body,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            allow_redirects=False,
        ) as response:
            signature = response.headers.get(SIGNATURE_HEADER)
            return SignedAnswer(response.status, await _read(response), signature)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > ANSWER_MAX_BYTES:
            raise too_long()
    return bytes(body)
