"""What can be a node's id, and what a URL where one is reached."""

import pytest

from app.addresses import is_node_id, parse_peers, peer_url


@pytest.mark.parametrize("text", ["A", "0", "eu-west_1", "a" * 32])
def test_letters_digits_hyphens_and_underscores_name_a_node(text: str) -> None:
    assert is_node_id(text)


@pytest.mark.parametrize("text", ["", "-A", "_A", "A~1", "A B", "A:1", "Ä", "a" * 33, "A\n"])
def test_nothing_else_names_a_node(text: str) -> None:
    assert not is_node_id(text)


def test_peers_are_listed_with_commas() -> None:
    assert parse_peers("") == {}
    assert parse_peers(" B = http://b:1/ ,\nC=https://[::1]:2,") == {
        "B": "http://b:1/",
        "C": "https://[::1]:2",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("B", "`B` is not of the form NODE=http://host:port"),
        ("B=", "`B=` is not of the form"),
        ("=http://b:1", "is not of the form"),
        ("B=http://b:1,B=http://b:2", "`B` is named twice"),
    ],
)
def test_what_is_no_list_of_peers_is_quoted(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_peers(text)


def test_a_url_has_one_form() -> None:
    for url in ("http://b:1", "http://b:1/", "http://b:1//", "HTTP://B:1"):
        assert peer_url("B", url) == "http://b:1"
    assert peer_url("B", "http://[FE80::1%25Eth0]:1") == "http://[FE80::1%25Eth0]:1"


@pytest.mark.parametrize(
    "url",
    ["http://b.example.:1", "http://" + "b" * 63, "http://ü.example", "http://b_1:1", "http://1:1"]
    + ["http://[::1]:1", "https://[fe80::1%25eth0]:1"],
)
def test_a_host_is_whatever_can_be_looked_up(url: str) -> None:
    assert peer_url("B", url) == url


@pytest.mark.parametrize(
    "url",
    ["", "b:1", "ftp://b:1", "http://", "http://b:0", "http://b:x", "http://[b", "http://b:1/x"]
    + ["http://b:1?x", "http://b:1#x", "http://user:hunter2@b:1"]
    + [
        "http://b:1?",
        "http://b:1#",
        " http://b:1",
        "http:// b:1",
        "http://b\r\nb:1",
        "http://b\t:1",
    ]
    + ["http://b\0:1", "http://b\x7f:1", "http://b\u2028:1", "http://<b>:1", 'http://"b":1']
    + [
        "http://a\\b:1",
        "http://b..example:1",
        "http://.:1",
        "http://" + "b" * 64,
        "http://" + "ü" * 60,
    ],
)
def test_what_is_no_url_of_a_node_is_refused_and_its_password_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="the URL of `B` must") as caught:
        peer_url("B", url)
    assert "hunter2" not in str(caught.value)
