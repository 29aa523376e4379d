"""The client for scripts, which wait for each answer.

What it is: `blocking`, which opens a `Lightcone` in a thread of its own, and `BlockingSession`, a
session whose methods return what those of `Session` would have been awaited for.

What it assumes and guarantees: each method has the name, the parameters, the result and the errors
of the one in `Session`, and its words, so there is one description of both. Threads may share a
session; a Ctrl-C ends the request that is waited for, and of a write the outcome is unknown then.

What it does not know: what any method does.

Where the idea is from: anyio's blocking portal.
"""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from client.errors import Lost
from client.lightcone import Lightcone
from client.session import Session

P = ParamSpec("P")
R = TypeVar("R")


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="lightcone", daemon=True
        )
        # Taken again where what is cleared away meanwhile gives work, too.
        self._giving = threading.RLock()
        self._takes = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._giving:
            ended = self._given(self._end_all())
            self._takes = False  # nor would what is given from now on ever be done
        if ended is None:
            return
        ended.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, awaitable: Awaitable[R]) -> R:
        """The result, once it is there."""

        async def wait() -> R:
            return await awaitable

        future = self._given(wait())
        if future is None:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()
            raise RuntimeError(
                "not open: use it inside `with blocking(Lightcone([...])) as kv:`, in the process "
                "that began it"
            )
        try:
            return future.result()
        except BaseException:  # also Ctrl-C: the request may not go on behind the caller
            future.cancel()
            raise

    def soon(self, work: Coroutine[Any, Any, None]) -> None:
        """It will be done, if the loop still runs; nobody waits for it.

        So it may be asked for wherever things are cleared away, which may be in the loop's thread.
        """
        self._given(work)

    def _given(self, work: Coroutine[Any, Any, R]) -> Future[R] | None:
        """The work, which the loop will do; None, if it does nothing any more."""
        if self._thread.is_alive():  # which it is not in a process that was forked from its own
            with self._giving:
                if self._takes:
                    return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        return None

    async def _end_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()


class _Method(Generic[P, R]):
    """A method of `Session`, and how what it returns is turned into what a script can use."""

    def __init__(self, method: Callable[..., Any], turned: Callable[[_Loop, Any], R]) -> None:
        self._method = method
        self._turned = turned
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, session: None, owner: type) -> Self: ...
    @overload
    def __get__(self, session: "BlockingSession", owner: type) -> Callable[P, R]: ...
    def __get__(self, session: "BlockingSession | None", owner: type) -> Self | Callable[P, R]:
        if session is None:
            return self

        @functools.wraps(self._method)
        def called(*arguments: P.args, **options: P.kwargs) -> R:
            made = self._method(session._session, *arguments, **options)
            return self._turned(session._loop, made)

        return called


def _awaited(method: Callable[Concatenate[Any, P], Awaitable[R]]) -> _Method[P, R]:
    return _Method(method, _Loop.run)


def _walked(method: Callable[Concatenate[Any, P], AsyncIterator[R]]) -> _Method[P, Iterator[R]]:
    def walk(loop: _Loop, items: Any) -> Iterator[R]:
        try:
            while True:
                try:
                    item = loop.run(anext(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            loop.soon(items.aclose())

    return _Method(method, walk)


def _entered(
    method: Callable[Concatenate[Any, P], AbstractAsyncContextManager[R]],
) -> _Method[P, AbstractContextManager[R]]:
    @contextmanager
    def enter(loop: _Loop, manager: AbstractAsyncContextManager[R]) -> Iterator[R]:
        entered = loop.run(manager.__aenter__())
        try:
            yield entered
        except BaseException as error:
            if not loop.run(manager.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            loop.run(manager.__aexit__(None, None, None))

    return _Method(method, enter)


def _again(method: Callable[Concatenate[Any, P], Session]) -> "_Method[P, BlockingSession]":
    return _Method(method, lambda loop, session: BlockingSession(session, loop))


class BlockingSession:
    """A `Session` for scripts. Made by `blocking`, `session` and `at`."""

    def __init__(self, session: Session, loop: _Loop) -> None:
        self._session = session
        self._loop = loop

    @property
    def nodes(self) -> tuple[str, ...]:
        """The addresses of the nodes that serve this session, nearest first."""
        return self._session.nodes

    @property
    def context(self) -> str:
        """What the session has seen, to be handed to `session(context=...)`, here or elsewhere."""
        return self._loop.run(_of(lambda: self._session.context))

    @property
    def name(self) -> str:
        """What the session is called where its operations are recorded."""
        return self._session.name

    def go_on(self, error: Lost) -> None:
        """The session goes on without the writes that are lost, as `Session.go_on` says."""
        self._loop.run(_of(lambda: self._session.go_on(error)))

    session = _again(Session.session)
    at = _again(Session.at)
    put = _awaited(Session.put)
    get = _awaited(Session.get)
    siblings = _awaited(Session.siblings)
    delete = _awaited(Session.delete)
    txn = _entered(Session.txn)
    list = _walked(Session.list)
    conflicts = _walked(Session.conflicts)
    watch = _walked(Session.watch)
    explain = _awaited(Session.explain)
    status = _awaited(Session.status)
    pending = _awaited(Session.pending)
    ready = _awaited(Session.ready)
    members = _awaited(Session.members)
    add_member = _awaited(Session.add_member)
    remove_member = _awaited(Session.remove_member)
    declare_lost = _awaited(Session.declare_lost)
    set_fault = _awaited(Session.set_fault)
    heal = _awaited(Session.heal)


async def _of(made: Callable[[], R]) -> R:
    """What is made where nothing else happens meanwhile: in the thread of the loop."""
    return made()


@contextmanager
def blocking(kv: Lightcone) -> Iterator[BlockingSession]:
    """The first session of this client, for a script. The client is open within the block.

    with blocking(Lightcone(["http://127.0.0.1:8001"])) as kv:
        kv.put("lunch", "noon?")
        for key in kv.list():
            print(key)
        with kv.txn() as txn:
            txn.delete("lunch")
    """
    with _Loop() as loop:
        loop.run(kv.__aenter__())
        try:
            yield BlockingSession(kv, loop)
        finally:
            loop.run(kv.__aexit__(None, None, None))
