"""What the node answers about backups: one is streamed out, or in.

Assumes a client that keeps what it is sent only if it is whole: a stream that has begun can only be
broken off. Guarantees that a backup which is refused, or breaks off, has changed nothing; and that
who does not read on keeps nobody else from having one, for only one is made at a time.

Does not know what is in a backup.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from app import backup_file, contract, errors, shapes
from app.backup import Backups
from app.config import Config
from app.contract import JSON, Answer, Content, Route
from app.http_session import Sessions
from app.interface import Interface
from app.log import get_logger
from app.replies import Reply, json_reply

log = get_logger(__name__)

_PIECE_BYTES: Final = 64 * 1024
"""A part may have many times as much, which a slow client takes long to read though it reads."""

BACKUP: Final = Route(
    name="backup",
    method="GET",
    path="/backup",
    group="backups",
    about="The whole state of this node at one clock, as a stream.\n\n"
    "One without its end is none: the last bytes are a checksum of all.",
    answers=(Answer(200, "A backup.", Content(backup_file.CONTENT_TYPE)),),
    problems=(errors.Busy, errors.RedisUnavailable),
)
RESTORE: Final = Route(
    name="restore",
    method="POST",
    path="/restore",
    group="backups",
    about="The backup is merged with what this node has, and goes from here to the others.",
    body=Content(backup_file.CONTENT_TYPE),
    answers=(
        Answer(
            *(200, "All of it is merged."),
            Content(JSON, shapes.Restored, {"keys": 140, "cut": {"A": 151, "B": 50}}),
            (contract.SEEN,),
        ),
    ),
    problems=(
        *(errors.BadBackup, errors.ForeignBackup, errors.Busy),
        *(errors.Syncing, errors.RedisUnavailable),
    ),
)


@dataclass(frozen=True, slots=True)
class BackupRoutes:
    """The routes of backups."""

    config: Config
    backups: Backups
    sessions: Sessions

    def add_to(self, interface: Interface) -> None:
        """These routes are served."""
        interface.serve(BACKUP, self.make)
        interface.serve(RESTORE, self.restore)

    async def make(self, request: web.BaseRequest) -> web.StreamResponse:
        """A backup of this node's state, as a stream."""
        async with aclosing(self.backups.stream()) as stream:
            first = await anext(stream)  # what is refused is refused before anything is sent
            response = web.StreamResponse(headers={"Content-Type": backup_file.CONTENT_TYPE})
            await response.prepare(request)
            try:
                await self._send(response, first)
                async for data in stream:
                    await self._send(response, data)
                async with self._patience():
                    await response.write_eof()
            except TimeoutError:
                log.info("backup given up", reason="it is not read", remote=request.remote)
                if request.transport is not None:
                    request.transport.abort()
            except (errors.LogTrimmed, errors.RedisUnavailable, errors.Busy) as error:
                log.error("backup broken off", reason=str(error))
                # The client must not take what it has for the whole: no end is sent.
                if request.transport is not None:
                    request.transport.close()
            return response

    async def _send(self, response: web.StreamResponse, data: bytes) -> None:
        """The client is sent this, or there is room for it on its way.

        Raises ClientConnectionResetError if it has gone, TimeoutError if it does not read.
        """
        for start in range(0, len(data), _PIECE_BYTES):
            async with self._patience():
                await response.write(data[start : start + _PIECE_BYTES])

    def _patience(self) -> asyncio.Timeout:
        return asyncio.timeout(self.config.backup_stall_ms / 1000)

    async def restore(self, request: web.BaseRequest) -> Reply:
        """The backup is merged with what is here."""
        restored = await self.backups.restore(_body(request))
        answer: shapes.Restored = {"keys": restored.keys, "cut": restored.cut.to_dict()}
        return json_reply(answer, headers=self.sessions.headers(restored.cut))


async def _body(request: web.BaseRequest) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except (ConnectionError, web.RequestPayloadError):
        raise errors.BadBackup("The backup broke off.") from None
