"""Checks what clients saw against what the store promises: `python -m tests.checker FILE.jsonl`.

What it is: a reader of client histories, the checks, and for each violation the few operations
that show it, in an order and with reasons that a person can follow by hand.

What it assumes and guarantees: no value is put twice on one key, so it is known which write a read
shows. It never blames a store that keeps its promises: what it says follows from what clients saw,
and from the dots and dependencies in the history where they are recorded. It finds every violation
of causal convergence in histories of puts and plain gets; with siblings and deletes it finds what
can be told without guessing (see `patterns.py`), and the more dependencies are recorded, the more
that is.

What it does not know: the store's code, time, and whatever no client saw. Times order the
operations of one session among themselves and nothing else.

Where the idea is from: Bouajjani, Enea, Guerraoui, Hamza, "On Verifying Causal Consistency" (POPL
2017), for the bad patterns; Terry et al. 1994 for the session guarantees; Jepsen's Elle for
explanations that can be checked by hand.

The format: JSON lines, one operation a line, in any order across sessions.

    {"session": "alice", "node": "A", "kind": "put", "key": "x", "value": "1", "dot": "A:1"}
    {"session": "bob", "node": "B", "kind": "get", "key": "x", "seen": [{"value": "1"}]}

| field | in | says |
|---|---|---|
| `session` | all | whose operation it is |
| `node` | all | which node answered, or was asked |
| `kind` | all | `put`, `delete`, `get`, `siblings` or `txn` |
| `key` | all but `txn` | the key |
| `value` | `put` | text, no value twice on one key |
| `seen` | `get`, `siblings` | what was shown, winner first: objects with `value`, `dot` or both |
| `complete` | `get` | whether `seen` names all siblings, as an ETag does: false |
| `reads` | `txn` | list of `{"key", "seen", "complete"}` (true), from one snapshot |
| `writes` | `txn` | list of `{"key", "value"}` or `{"key", "delete": true}`, under one dot |
| `dot` | writes | the write's name, if the client or a log tells it |
| `dependencies` | writes | the vector clock just before the write, as `{"A": 3}`. The clock in |
| | | the answer to a put is this, joined with the write's own dot |
| `outcome` | all | `ok` (the default), `not_applied`, `unknown` |
| `carries` | all | whether the operation carried and kept the session's context: true. If not, |
| | | it is not ordered with the rest of its session |
| `final` | reads | made when all nodes had been healed and had caught up: false |
| `start`, `end` | all | monotonic microseconds. When all operations of a session have both, one |
| | | comes before another if it ended before the other started; else lines do |
| `lost` | all | the newest dot in the session's context, after the operation, of those that were |
| | | lost for good with a node's disk. Nobody who has seen such a write can be served by |
| | | those who have not, so at the end nothing of this is left: see `check_all` |
| `context_in`, `context_out` | all | tokens, for people; they are opaque and not looked at |

`python -m tests.checker.benchmark` prints what 100,000 operations take on this machine.

A deferred write is `ok` when it was accepted: it has its dot and its place in its session from then
on, for whoever carries that is served after it, and it may be seen later. Its `dependencies` are
the clock when it was done, which a log tells.

An operation whose outcome is `unknown` may have taken effect or not, then or later; nothing in its
session is known to come after it. A read that is not `ok` saw nothing and is left aside.
"""
