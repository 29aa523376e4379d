"""Contender `naive`: the twenty lines that people write themselves, one `await redis` per request.

What it is: a plain value in a plain Redis. What it assumes and guarantees: whatever redis-py's pool
does by default. What it does not know: other nodes, causality, conflicts.
"""

import sys

import uvloop
from aiohttp import web
from redis.asyncio import Redis

REDIS = web.AppKey("REDIS", Redis)


async def put(request: web.Request) -> web.Response:
    """The value is kept."""
    await request.app[REDIS].set(request.match_info["key"], await request.read())
    return web.Response(text="ok")


async def get(request: web.Request) -> web.Response:
    """The value that is kept."""
    value = await request.app[REDIS].get(request.match_info["key"])
    return web.Response(status=404) if value is None else web.Response(body=value)


def main() -> None:
    """Serve until told to stop; the arguments are the port and the URL of Redis."""
    application = web.Application()
    application[REDIS] = Redis.from_url(sys.argv[2])
    application.router.add_put("/kv/{key}", put)
    application.router.add_get("/kv/{key}", get)
    web.run_app(
        application,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
