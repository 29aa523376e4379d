"""The causal context: what a session has seen, as the token in `Causal-Context`.

A token prints a small vector clock: `lc1;A:7;B:3`. With a cluster secret it ends in a signature,
`;s=...`, so that nobody can invent a future for a node to wait for. A header may hold several
tokens, separated by commas: a session with requests in flight side by side has one from each.

Assumes nothing of what it parses. Guarantees that a token it accepts was made by a node with the
same secret, where there is one. Which writes go into a context is decided by the caller
(DESIGN.md, section 3).

Does not know HTTP beyond the text of the header, nor who the members are.
"""

import base64
import hashlib
import hmac
from typing import Final

from app.errors import BadContext, TooLarge
from app.vector_clock import NOTHING, VectorClock

_VERSION: Final = "lc1"
_SIGNATURE: Final = ";s="
_SIGNATURE_BYTES: Final = 16
"""Half of SHA-256: 128 bits cannot be guessed, and the header stays short."""


class Contexts:
    """Makes and reads the tokens of one cluster."""

    def __init__(self, secret: str | None, max_bytes: int) -> None:
        self._key = None if secret is None else secret.encode()
        self._max_bytes = max_bytes

    @property
    def are_signed(self) -> bool:
        """Whether only nodes of this cluster can have made a token that is taken."""
        return self._key is not None

    def token(self, context: VectorClock) -> str:
        """The token that says `context`."""
        text = f"{_VERSION};{context.entries_text().replace(' ', ';')}"
        return text if self._key is None else text + _SIGNATURE + self._signature(text)

    def parse(self, header: str) -> VectorClock:
        """The join of the tokens in `header`; the empty clock for an empty header.

        Raises BadContext, TooLarge.
        """
        if not header:
            return NOTHING
        if len(header) > self._max_bytes:
            raise TooLarge(
                f"The Causal-Context has {len(header)} bytes, and this node takes "
                f"{self._max_bytes} (CONTEXT_MAX_BYTES). Nothing was done."
            )
        context = NOTHING
        for token in header.split(","):
            if token := token.strip():
                context = context.merge(self._parse_token(token))
        return context

    def _parse_token(self, token: str) -> VectorClock:
        text, has_signature, signature = token.partition(_SIGNATURE)
        if self._key is None:
            if has_signature:
                raise _bad(token, "it is signed, and this node has no CLUSTER_SECRET")
        elif not hmac.compare_digest(_bytes(signature), self._signature(text).encode()):
            raise _bad(token, "its signature is not of this cluster's CLUSTER_SECRET")
        version, _, entries = text.partition(";")
        if version != _VERSION:
            raise _bad(token, f"it does not begin with {_VERSION};")
        try:
            return VectorClock.parse(entries.replace(";", " "))
        except ValueError as error:
            raise _bad(token, str(error)) from None

    def _signature(self, text: str) -> str:
        assert self._key is not None
        digest = hmac.digest(self._key, _bytes(text), hashlib.sha256)[:_SIGNATURE_BYTES]
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    # Bytes of a header that are not UTF-8 come as lone surrogates.
    return text.encode(errors="surrogatepass")


def _bad(token: str, why: str) -> BadContext:
    shown = token if len(token) <= 60 else token[:60] + "..."
    return BadContext(
        f"{shown!r} is no causal context that a node of this cluster made: {why}. Nothing was "
        "done. Send it as a node gave it, or leave it out."
    )
