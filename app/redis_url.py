"""Where a node's Redis is, as REDIS_URL says it: one address, or Sentinels that know it.

What it is: `check`, which refuses a URL that cannot be used; `behind_sentinels`, which takes one
apart that names Sentinels; `shown`, a URL for people.

What it assumes and guarantees: no password is in any error, and none in what `shown` returns.

What it does not know: how to connect. Pure.

Where the idea is from: redis-py knows no URL for Sentinels; this is the form of Redis-Sentinel-Url
and of what came after it in Python.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

SENTINEL_PORT: Final = 26379

_SENTINELS: Final = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<user>[^@/?#]*)@)?(?P<members>[^@/?#]+)"
    r"/(?P<service>[^/?#]+)(?:/(?P<database>\d*))?(?:\?(?P<options>[^#]*))?"
)
_MEMBER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(\d+))?")


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Those who know where the primary of a service is, and how to speak to them and to it.

    `primary_url` is a URL of the ordinary form but for the address, which stands for nothing.
    """

    addresses: tuple[tuple[str, int], ...]
    service: str
    primary_url: str
    username: str | None = None
    password: str | None = None


def behind_sentinels(url: str | None) -> Sentinels | None:
    """The Sentinels that `url` names, if it is of that kind. Raises ValueError."""
    if url is None or not re.match(r"rediss?\+sentinel:", url):
        return None
    parts = _SENTINELS.fullmatch(url)
    if parts is None:
        raise ValueError(
            "must be redis+sentinel://host:port,host:port/service, where service is the name that "
            "the Sentinels give to the Redis; then /database and ?options, if any"
        )
    addresses = tuple(map(_address, parts["members"].split(",")))
    options = dict(parse_qsl(parts["options"] or "", keep_blank_values=True))
    username, password = (options.pop(f"sentinel_{n}", None) for n in ("username", "password"))
    user = "" if parts["user"] is None else f"{parts['user']}@"
    query = f"?{urlencode(options)}" if options else ""
    primary = f"{parts['scheme']}://{user}primary/{parts['database'] or 0}{query}"
    return Sentinels(addresses, parts["service"], primary, username, password)


def check(url: str) -> None:
    """`url` is of a form that can be used. Raises ValueError."""
    if behind_sentinels(url) is None and not re.match(r"(redis|rediss|unix)://.", url):
        raise ValueError(
            "must begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
        )


def shown(url: str) -> str:
    """`url` for people: without the passwords."""
    without_user = re.sub(r"(?<=://)[^/?#]*@", "***@", url)
    return re.sub(r"(?<=password=)[^&#]*", "***", without_user)


def scheme(url: str) -> str:
    """What the URL of a Redis, not of Sentinels, begins with."""
    return urlsplit(url).scheme


def _address(member: str) -> tuple[str, int]:
    match = _MEMBER.fullmatch(member.strip())
    port = int(match[2] or SENTINEL_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError(f"names a Sentinel that is no host:port: {member.strip() or 'nothing'}")
    return match[1].strip("[]"), port
