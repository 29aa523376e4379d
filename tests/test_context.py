"""The causal context's token: short, printable, and nobody's invention."""

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.context import Contexts
from app.errors import BadContext, TooLarge
from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

MAX_BYTES = 8 * 1024
SECRET = "a secret of a cluster"
open_ = Contexts(None, MAX_BYTES)
signed = Contexts(SECRET, MAX_BYTES)
kinds = pytest.mark.parametrize("contexts", [open_, signed], ids=["open", "signed"])

SEEN = VectorClock({"A": 7, "B": 3})
actors = st.from_regex(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}([~.+][A-Za-z0-9]{0,4}){0,3}", fullmatch=True
)
clocks = st.dictionaries(actors, st.integers(1, SEQUENCE_MAX), max_size=6).map(VectorClock)


def refusal(contexts: Contexts, header: str) -> str:
    """Why `header` is refused."""
    with pytest.raises(BadContext) as caught:
        contexts.parse(header)
    assert caught.value.outcome == "not_applied"
    assert "Nothing was done." in caught.value.detail
    assert SECRET not in caught.value.detail
    return caught.value.detail


# --- what a node makes ---------------------------------------------------------------------------


def test_a_token_can_be_read_by_a_person() -> None:
    assert open_.token(SEEN) == "lc1;A:7;B:3"
    assert open_.token(VectorClock()) == "lc1;"
    assert signed.token(SEEN).startswith("lc1;A:7;B:3;s=")
    assert signed.token(VectorClock()).startswith("lc1;;s=")


@kinds
@patient
@given(seen=clocks)
def test_a_token_parses_to_what_it_says(contexts: Contexts, seen: VectorClock) -> None:
    assert contexts.parse(contexts.token(seen)) == seen


@kinds
@patient
@given(seen=clocks)
def test_a_token_is_fit_for_a_header_and_for_a_list_in_one(
    contexts: Contexts, seen: VectorClock
) -> None:
    allowed = set(string.ascii_letters + string.digits + ";:=~.+_-")
    assert set(contexts.token(seen)) <= allowed


def test_the_same_secret_makes_the_same_token_at_every_node() -> None:
    assert Contexts(SECRET, MAX_BYTES).token(SEEN) == signed.token(SEEN)
    assert Contexts(SECRET, 1).token(SEEN) == signed.token(SEEN)


def test_a_secret_of_any_characters_signs() -> None:
    contexts = Contexts("schlüssel 🗝", MAX_BYTES)
    assert contexts.parse(contexts.token(SEEN)) == SEEN


# --- several tokens ------------------------------------------------------------------------------


@kinds
@patient
@given(several=st.lists(clocks, max_size=4))
def test_several_tokens_are_joined(contexts: Contexts, several: list[VectorClock]) -> None:
    joined = VectorClock()
    for seen in several:
        joined = joined.merge(seen)
    assert contexts.parse(",".join(map(contexts.token, several))) == joined


@kinds
def test_white_space_and_empty_parts_between_tokens_do_not_matter(contexts: Contexts) -> None:
    one, other = contexts.token(SEEN), contexts.token(VectorClock({"B": 9}))
    assert contexts.parse(f" ,{one} ,\t{other},, ") == VectorClock({"A": 7, "B": 9})


@kinds
@pytest.mark.parametrize("header", ["", " ", ",", " , ,"])
def test_no_token_is_the_empty_context(contexts: Contexts, header: str) -> None:
    assert contexts.parse(header) == VectorClock()


@kinds
def test_one_bad_token_spoils_all(contexts: Contexts) -> None:
    refusal(contexts, contexts.token(SEEN) + ", lc1;A:x")


# --- signatures ----------------------------------------------------------------------------------


def test_no_character_of_a_signed_token_can_be_changed() -> None:
    token = signed.token(SEEN)
    for position, was in enumerate(token):
        # Comma and space would make it several tokens, of which one at least is bad as well.
        for character in "AaB19;:=~_-., ":
            if character != was:
                refusal(signed, token[:position] + character + token[position + 1 :])


def test_no_part_of_a_signed_token_can_be_left_out() -> None:
    token = signed.token(SEEN)
    for size in range(1, len(token)):
        refusal(signed, token[:size])
        refusal(signed, token[size:])


def test_a_future_cannot_be_invented_with_the_signature_of_the_past() -> None:
    signature = signed.token(SEEN).partition(";s=")[2]
    detail = refusal(signed, f"lc1;A:8;B:3;s={signature}")
    assert "its signature is not of this cluster's CLUSTER_SECRET" in detail
    refusal(signed, f"lc1;A:7;B:3;C:1;s={signature}")
    refusal(signed, f"lc1;A:7;B:3;s={signature};s={signature}")


def test_a_token_of_another_secret_is_refused() -> None:
    token = Contexts("the secret of another", MAX_BYTES).token(SEEN)
    assert "CLUSTER_SECRET" in refusal(signed, token)


@pytest.mark.parametrize("token", ["lc1;A:7;B:3", "lc1;", "lc1", "lc1;A:7;B:3;s=", "lc1;A:7;B:3;s"])
def test_a_token_without_a_signature_is_refused_where_there_is_a_secret(token: str) -> None:
    assert "CLUSTER_SECRET" in refusal(signed, token)


def test_a_signed_token_is_refused_where_there_is_no_secret() -> None:
    assert "this node has no CLUSTER_SECRET" in refusal(open_, signed.token(SEEN))


# --- malformed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token",
    ["x", "A:7", "lc2;A:7", "LC1;A:7", ";A:7", "lc1 ;A:7", "lc1:A:7", "lc10;", "lc1;A", "lc1;A:0"]
    + ["lc1;A:-1", "lc1;A:07", "lc1;A:7;A:8", "lc1;A:7;A:7", f"lc1;A:{2**53}", "lc1;:7", "lc1;A:"]
    + ["lc1;A:7;s", "lc1;{A:7}", "lc1;A=7", "lc1;Ä:7", "lc1;A:٣", 'lc1;"A:7"', "null", "lc1;A:1e3"],
)
def test_what_no_node_made_is_refused(token: str) -> None:
    detail = refusal(open_, token)
    assert "no causal context that a node of this cluster made" in detail
    assert "Send it as a node gave it, or leave it out." in detail


@kinds
@pytest.mark.parametrize(
    "header",
    [
        "lc1;A:7;s=\udcff",
        "lc1;\udcff:7",
        "lc1;\udcff:7;s=AAAA",
        "\udcff",
        "lc1;A:7\udcc3\udcbc",
        "lc1;A:7;s=ü",
        "lc1;A:7;B:3\0",
    ],
)
def test_bytes_that_are_no_text_are_refused(contexts: Contexts, header: str) -> None:
    """Bytes of a header that are not UTF-8 come as lone surrogates."""
    refusal(contexts, header).encode()


@kinds
@patient
@given(header=st.text(st.characters(exclude_categories=()), max_size=40))
def test_any_header_is_a_context_or_refused(contexts: Contexts, header: str) -> None:
    try:
        seen = contexts.parse(header)
    except BadContext:
        return
    assert contexts.parse(contexts.token(seen)) == seen


@patient
@given(st.text(st.sampled_from("lc1;A:7;B,s= \t"), max_size=40))
def test_any_header_that_looks_like_one_is_a_context_or_refused(header: str) -> None:
    try:
        seen = open_.parse(header)
    except BadContext:
        return
    assert open_.parse(open_.token(seen)) == seen


def test_a_bad_token_is_quoted_in_part() -> None:
    detail = refusal(open_, "x" * 5000)
    assert "x" * 60 + "..." in detail
    assert len(detail) < 500


# --- size ----------------------------------------------------------------------------------------


def test_a_header_of_the_greatest_length_is_taken_and_no_longer_one() -> None:
    header = open_.token(VectorClock({"A": 7}))
    assert Contexts(None, len(header)).parse(header) == VectorClock([Dot("A", 7)])
    with pytest.raises(TooLarge) as caught:
        Contexts(None, len(header) - 1).parse(header)
    assert caught.value.outcome == "not_applied"
    assert "CONTEXT_MAX_BYTES" in caught.value.detail


def test_the_length_is_of_the_whole_header() -> None:
    token = open_.token(SEEN)
    with pytest.raises(TooLarge):
        Contexts(None, 2 * len(token)).parse(f"{token},{token}")
