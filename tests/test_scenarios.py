"""Every story in `tests/scenarios/` happens as it is told, on both kinds of Redis."""

from pathlib import Path

import pytest

from tests.conftest import MakeStore
from tests.story import Story

STORIES = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
async def test_story_happens_as_told(path: Path, make_store: MakeStore) -> None:
    text = path.read_text()  # noqa: ASYNC240 (a small file, and nothing else to do)
    assert await Story(make_store).tell(text) == text


async def test_a_story_that_is_told_wrong_is_found_out(make_store: MakeStore) -> None:
    text = 'put A lunch "noon?"                -> A:2 after {A:1}\n'
    told = await Story(make_store).tell(text)
    assert told == 'put A lunch "noon?"                -> A:1 after {}\n'


def test_there_are_stories() -> None:
    assert len(STORIES) >= 8
