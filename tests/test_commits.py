"""What a local write takes to be carried out."""

from app.commits import Commit
from app.conditions import Condition
from app.write import Delete, Put


def test_a_write_weighs_what_it_holds_and_what_has_to_be_looked_at() -> None:
    small = Commit([Put("a", b"x" * 100)])
    assert Commit([Put("a", b"x" * 5100)]).weight == small.weight + 5000
    assert Commit([Put("a", b"x" * 100), Delete("b")]).weight > small.weight
    assert Commit([Put("a", b"x" * 100)], [Condition.exists("b")]).weight > small.weight
    assert Commit([Put("a", b"x" * 100)], reads=["b"]).weight > small.weight
