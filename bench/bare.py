"""Contender `bare`: aiohttp with a router and fixed answers, and nothing behind it.

What it is: as little as a service on aiohttp can cost. What it assumes and guarantees: the body of
a PUT is read, as any service would. What it does not know: what is in it.
"""

import sys

import uvloop
from aiohttp import web

VALUE = b"x" * 100


async def put(request: web.Request) -> web.Response:
    """Nothing is kept."""
    await request.read()
    return web.Response(text="ok")


async def get(request: web.Request) -> web.Response:
    """The same value for every key."""
    return web.Response(body=VALUE)


def application() -> web.Application:
    """The service."""
    made = web.Application()
    made.router.add_put("/kv/{key}", put)
    made.router.add_get("/kv/{key}", get)
    return made


def main() -> None:
    """Serve until told to stop; the argument is the port."""
    web.run_app(
        application(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
