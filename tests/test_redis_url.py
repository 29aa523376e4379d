"""REDIS_URL: one Redis, or the Sentinels that know it; and no password is ever shown."""

import pytest

from app import redis_url
from app.redis_url import Sentinels, behind_sentinels, shown


@pytest.mark.parametrize(
    ("url", "sentinels"),
    [
        (
            "redis+sentinel://a:1,b:2,c/main",
            Sentinels((("a", 1), ("b", 2), ("c", 26379)), "main", "redis://primary/0"),
        ),
        (
            "redis+sentinel://user:p%40ss@[::1]:7,10.0.0.1/main/3",
            Sentinels((("::1", 7), ("10.0.0.1", 26379)), "main", "redis://user:p%40ss@primary/3"),
        ),
        (
            "rediss+sentinel://:pw@a/main?sentinel_password=s%26t&sentinel_username=u&ssl_ca_certs=x",
            Sentinels((("a", 26379),), "main", "rediss://:pw@primary/0?ssl_ca_certs=x", "u", "s&t"),
        ),
    ],
)
def test_a_url_names_sentinels_service_and_how_to_speak_to_both(
    url: str, sentinels: Sentinels
) -> None:
    assert behind_sentinels(url) == sentinels
    redis_url.check(url)


@pytest.mark.parametrize("url", [None, "redis://a:1/0", "rediss://a", "unix:///s"])
def test_other_urls_name_no_sentinels(url: str | None) -> None:
    assert behind_sentinels(url) is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://a", "must begin with redis://"),
        ("redis+sentinel://a:1,b:2", "must be redis.sentinel://host:port,host:port/service"),
        ("redis+sentinel:///main", "must be redis.sentinel://"),
        ("redis+sentinel://a/main/x", "must be redis.sentinel://"),
        ("redis+sentinel://a:1,,b:2/main", "no host:port: nothing"),
        ("redis+sentinel://a:0/main", "no host:port: a:0"),
        ("redis+sentinel://a:70000/main", "no host:port: a:70000"),
        ("redis+sentinel://:hush@a:b/main?sentinel_password=hush", "no host:port: a:b"),
    ],
)
def test_what_cannot_be_used_is_refused_without_a_password(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as told:
        redis_url.check(url)
    assert "hush" not in str(told.value)


def test_passwords_of_sentinels_are_not_shown() -> None:
    assert shown("redis+sentinel://u:hush@a:1,b/main/0?sentinel_password=hush&x=1") == (
        "redis+sentinel://***@a:1,b/main/0?sentinel_password=***&x=1"
    )


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://localhost:6379", "redis://localhost:6379"),
        ("redis://localhost:6379/3", "redis://localhost:6379/3"),
        ("redis://:hush@localhost:6379/3", "redis://***@localhost:6379/3"),
        ("redis://user:hush@localhost", "redis://***@localhost"),
        ("rediss://user:hu@sh@redis.example:6380", "rediss://***@redis.example:6380"),
        ("rediss://hush@[::1]:6380/0", "rediss://***@[::1]:6380/0"),
        ("unix:///var/run/redis.sock", "unix:///var/run/redis.sock"),
        ("unix://user:hush@/var/run/redis.sock?db=3", "unix://***@/var/run/redis.sock?db=3"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, text: str) -> None:
    assert shown(url) == text


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379?password=hush",
        "redis://localhost:6379/3?db=3&password=hush&protocol=3",
        "unix:///var/run/redis.sock?password=hush",
        "unix://user@/var/run/redis.sock?db=1&password=hush",
    ],
)
def test_a_password_in_the_query_is_not_shown_either(url: str) -> None:
    """That is the form that redis-py documents for sockets."""
    assert "hush" not in shown(url)
    assert shown(url).startswith(url.split(":")[0])
