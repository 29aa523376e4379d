"""Seeds that once found something, each with a word on what: they are run for ever after.

A seed means the same only while plan.py draws the same: where it changes, a seed here is one more
seed, and what it found has a test of its own as well.
"""

from typing import Final

FOUND: Final[dict[tuple[int, str], str]] = {
    (
        100,
        "disk",
    ): "a node that lost its disk began anew under its name, for no peer had its writes",
    (131, "disk"): "the same, with writes of others between",
    (241, "disk"): "the same, after a longer life",
    (1079, "mix"): "a link ended its worker when it read a log while it was in doubt who writes",
    (
        179,
        "mix",
    ): "a node stayed removed by a write that went with the disk of the one that told it",
    (10478, "crash"): "a failure of Redis while the end of a snapshot was read ended the worker",
    (10487, "mix"): "the simulation added nobody again who heard late of having been removed",
    (10739, "mix"): "the oracle took what a member had lost with its disk for what it never had",
    (3118, "members"): "the simulation removed a node that alone connected the others, for good",
    (4175, "mix"): "the simulation left waiting what had overtaken what a disk had taken",
    (
        6335,
        "mix",
    ): "the simulation ended when a node had just told the others what its settings name",
    (
        20627,
        "mix",
    ): "the oracle knew nothing of a snapshot that was whole when its sender lost its disk",
    (
        20879,
        "mix",
    ): "the oracle missed after a power cut what had been deferred, and lost with a disk",
    (
        30527,
        "mix",
    ): "the oracle missed after a power cut what had just come home, and had been lost with a disk",
    (
        70173,
        "gaps",
    ): "the oracle had a deferred write wait for the past of what was declared lost",
    (
        70082,
        "lanes",
    ): "the oracle wanted to see under both names what was done under another one after a loss",
}
"""(seed, profile) -> what it found."""
