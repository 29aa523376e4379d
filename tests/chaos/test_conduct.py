"""Strikes that work, that are never seen to work, that fail, and that cannot be healed."""

import asyncio

import pytest

from tests.chaos.conduct import Conductor
from tests.chaos.nemeses import Nemesis
from tests.chaos.plan import ALONE, Strike


class Fake:
    """A nemesis that does nothing but note what is asked of it."""

    def __init__(self, notes: list[str], name: str, proof: str = "seen", fails: str = "") -> None:
        self._notes = notes
        self._name = name
        self._proof = proof
        self._fails = fails

    async def strike(self) -> None:
        self._do("strike")

    async def proof(self) -> str:
        self._do("proof")
        return self._proof

    async def heal(self) -> None:
        self._do("heal")

    def _do(self, what: str) -> None:
        self._notes.append(f"{self._name} {what}")
        if self._fails == what:
            raise OSError("it does not want to")


def strike(name: str, lasts_s: float = 0.0) -> Strike:
    return Strike(name, gap_s=0.0, lasts_s=lasts_s)


async def conduct(
    *tracks: tuple[Strike, ...], notes: list[str], proof: str = "seen", fails: str = ""
) -> Conductor:
    def make(strike: Strike) -> Nemesis:
        return Fake(notes, strike.nemesis, proof, fails)

    conductor = Conductor(make, lambda line: None, proof_max_s=0.3)
    await conductor.run(tracks)
    return conductor


async def test_the_strikes_of_a_track_follow_each_other() -> None:
    notes: list[str] = []
    conductor = await conduct((strike("a"), strike("b")), notes=notes)
    assert notes == ["a strike", "a proof", "a heal", "b strike", "b proof", "b heal"]
    assert [firing.fired for firing in conductor.firings] == [True, True]
    assert all(f.began_s <= f.healing_s <= f.ended_s for f in conductor.firings)
    assert not conductor.under_way()


async def test_tracks_go_on_side_by_side() -> None:
    notes: list[str] = []
    await conduct((strike("a"),), (strike("b"),), notes=notes)
    assert notes.index("b strike") < notes.index("a heal")


@pytest.mark.parametrize("alone", ALONE)
async def test_what_strikes_alone_waits_for_others_and_others_wait_for_it(alone: str) -> None:
    notes: list[str] = []
    await conduct(
        (strike("a", 0.3), strike(alone, 0.3), strike("b")),
        (strike("c", 0.5), strike("d"), strike("e")),
        notes=notes,
    )
    begins, ends = notes.index(f"{alone} strike"), notes.index(f"{alone} heal")
    assert begins > notes.index("a heal") and begins > notes.index("c heal")
    assert {note.partition(" ")[0] for note in notes[begins:ends]} == {alone}
    assert notes[-1] in ("b heal", "e heal") and len(notes) == 6 * 3


async def test_a_strike_that_nothing_shows_has_not_fired_and_is_healed() -> None:
    notes: list[str] = []
    conductor = await conduct((strike("a"), strike("b")), notes=notes, proof="")
    assert [firing.fired for firing in conductor.firings] == [False, False]
    assert "nothing showed" in conductor.firings[0].problem
    assert "a heal" in notes and "b heal" in notes


@pytest.mark.parametrize("step", ["strike", "proof", "heal"])
async def test_a_strike_that_fails_has_not_fired_is_healed_and_the_run_goes_on(step: str) -> None:
    notes: list[str] = []
    conductor = await conduct((strike("a"), strike("b")), notes=notes, fails=step)
    assert [firing.fired for firing in conductor.firings] == [False, False]
    assert conductor.firings[0].problem == "OSError: it does not want to"
    assert "a heal" in notes and "b heal" in notes


async def test_what_is_broken_when_a_run_is_given_up_is_healed() -> None:
    notes: list[str] = []
    running = asyncio.create_task(conduct((Strike("a", 0.0, lasts_s=3600.0),), notes=notes))
    async with asyncio.timeout(20):
        while "a proof" not in notes:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert notes[-1] == "a heal"
