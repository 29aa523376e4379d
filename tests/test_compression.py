"""Batches in fewer bytes: they come back, and nothing comes that would not fit."""

import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.compression import packed, unpacked
from app.errors import BadBatch, TooLarge
from tests.strategies import patient


@patient
@given(st.binary(max_size=2000))
def test_what_was_packed_comes_back(body: bytes) -> None:
    assert unpacked(packed(body), len(body)) == body


def test_what_is_alike_takes_less() -> None:
    assert len(packed(b"soup" * 1000)) < 100


def test_what_would_be_too_large_is_refused_before_it_is() -> None:
    bomb = packed(bytes(100_000_000))
    assert len(bomb) < 1_000_000
    with pytest.raises(TooLarge) as caught:
        unpacked(bomb, 1_000_000)
    assert "REPLICATE_MAX_BYTES" in caught.value.detail
    assert caught.value.outcome == "not_applied"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        packed(b"soup")[:-1],
        packed(b"soup") + b"\0",
        zlib.compress(b"soup", wbits=-9),
    ],
)
def test_what_nobody_packed_is_refused(body: bytes) -> None:
    with pytest.raises(BadBatch, match="Nothing of it was applied"):
        unpacked(body, 1000)


@patient
@given(st.binary(max_size=200))
def test_damage_is_refused_or_unpacked_and_nothing_else(body: bytes) -> None:
    with suppress(BadBatch, TooLarge):
        assert len(unpacked(body, 1000)) <= 1000
