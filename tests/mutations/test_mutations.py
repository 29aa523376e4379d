"""The mutations fit the tree, and a few are hunted; `python -m tests.mutations` hunts them all."""

import pytest

from tests.mutations.hunt import ROOT, hunt, mutated
from tests.mutations.mutations import MUTATIONS, Mutation

QUICK = (
    "dependency check skipped",
    "context ignored on read",
    "lease without expiry",
    "watch resumes one too far",
    "keys are read while they are merged",
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_fits_the_tree(mutation: Mutation) -> None:
    for file, old, new in mutation.edits():
        text = (ROOT / file).read_text()
        assert mutated(text, old, new) != text


def test_mutations_have_names_of_their_own() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", QUICK)
def test_a_break_of_a_guarantee_is_noticed(name: str) -> None:
    [mutation] = [mutation for mutation in MUTATIONS if mutation.name == name]
    assert hunt(mutation, 0, 100, clients_only=False)


@pytest.mark.timeout(300)
def test_an_unbroken_copy_is_not_blamed() -> None:
    assert hunt(None, 0, 8, clients_only=False) is None


@pytest.mark.timeout(300)
def test_a_break_that_goes_on_for_ever_is_noticed_as_that() -> None:
    endless = Mutation(
        "endless",
        "G6",
        "app/stability.py",
        "    return reduce(",
        "    while True: pass\n    reduce(",
    )
    found = hunt(endless, 0, 100, clients_only=False, cpu_max_s=5)
    assert found is not None and found.violation == "it goes on for ever"
