"""Coverage-guided fuzzing of all that reads what others send: `python -m tests.fuzzing.guided`.

What it is: one target for each reader, which is chosen by the first byte of the input, and the
corpus of good messages to begin with. A part of `make fuzz`, where atheris is installed.

What it assumes and guarantees: whatever the input, a reader returns a value, which can be packed
and read again, or raises the one error that says the input is bad. Anything else ends this program
with 77 and leaves the input in `.fuzz/`, where the inputs that lead somewhere new are kept, too.

What it does not know: Redis, HTTP. tests/fuzzing/test_*.py send the like to a node.

Where the idea is from: libFuzzer, and h11's own fuzzing of its reader.
"""

import sys
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["app"]):
    from app import codec, faults, wire
    from app.context import Contexts
    from app.errors import BadBatch, BadContext, BadFault, TooLarge
    from app.write import write_problem

from tests.fuzzing.test_replicate import BODIES
from tests.test_wire import ANSWER

_SECONDS: Final = 60
_CORPUS: Final = Path(__file__).parents[2] / ".fuzz" / "corpus"
_SIGNED: Final = Contexts("a secret of this cluster", 1000)
_UNSIGNED: Final = Contexts(None, 1000)


def batch(body: bytes) -> None:
    try:
        read = wire.decode_batch(body)
    except BadBatch:
        return
    assert not any(map(write_problem, read.writes))
    assert wire.decode_batch(wire.encode_batch(read)) == read
    for write in read.writes:
        packed = codec.pack_operations(write.operations)
        assert codec.unpack_operations(packed) == write.operations


def answer(body: bytes) -> None:
    try:
        read = wire.decode_answer(body)
    except BadBatch:
        return
    assert wire.decode_answer(wire.encode_answer(read)) == read


def context(body: bytes) -> None:
    header = body.decode(errors="surrogateescape")
    for contexts in (_SIGNED, _UNSIGNED):
        try:
            read = contexts.parse(header)
        except (BadContext, TooLarge):
            continue
        assert contexts.parse(contexts.token(read)) == read


def fault(body: bytes) -> None:
    try:
        read = faults.parse_fault(body)
    except BadFault:
        return
    assert faults.parse_fault(faults.fault_text(read).encode()) == read


TARGETS: Final = (batch, answer, context, fault)
SEEDS: Final = (
    *((batch, body) for body in BODIES),
    (answer, wire.encode_answer(ANSWER)),
    *((context, text) for text in (b"lc1;", b"lc1;A:7;B~x1:3, lc1;C:1", b"lc1;A:7;s=abc")),
    *((fault, text) for text in (b"{}", b'{"delay_ms":20,"drop":0.5}', b'{"cut":true}')),
)


def one_input(data: bytes) -> None:
    """One of the targets has read the input."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def main() -> None:
    """Does not return: libFuzzer ends the process."""
    options = sys.argv[1:] or [f"-max_total_time={_SECONDS}"]
    _CORPUS.mkdir(parents=True, exist_ok=True)
    for number, (target, body) in enumerate(SEEDS):
        (_CORPUS / f"seed-{number}").write_bytes(bytes([TARGETS.index(target)]) + body)
    fixed = [f"-artifact_prefix={_CORPUS.parent}/", "-max_len=4096"]
    atheris.Setup([sys.argv[0], *fixed, *options, str(_CORPUS)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
