"""The engine that runs a task in this process, in the thread that asks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from concurrent.futures import wait
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from grym_nb.errors import CallBlocked

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame

__all__ = ["iterate", "run"]

_UNFINISHED = frozenset((CoroutineType, GeneratorType, AsyncGeneratorType))


def run(frame: Frame) -> Any:
    """Return what the frame's task returns; a generator is run to its end and gives a list."""
    serving, spec = frame.serving, frame.spec
    assert serving is not None and spec is not None
    method = getattr(serving.model, spec.method)
    # Unpacking an empty dict costs as much as the rest of this function.
    value = method(*frame.args, **frame.kwargs) if frame.kwargs else method(*frame.args)
    if type(value) in _UNFINISHED:
        if type(value) is CoroutineType:
            return _on_loop(frame, value)
        if spec.kind in ("generator", "async generator"):
            return list(iterate(frame, value))
    return value


def iterate(frame: Frame, made: Generator[Any, Any, Any] | AsyncGenerator[Any, Any]) -> Iterator[Any]:
    """Yield from a generator task, plain or async, with the call's cancel and deadline between items."""
    if isinstance(made, GeneratorType):
        for item in made:
            frame.check()
            yield item
        return
    assert isinstance(made, AsyncGeneratorType)
    try:
        while True:
            frame.check()
            try:
                item = _on_loop(frame, _next(made))
            except StopAsyncIteration:
                return
            yield item
    finally:
        _on_loop(frame, made.aclose(), to_the_end=True)


async def _next(made: AsyncGenerator[Any, Any]) -> Any:
    return await made.__anext__()


def _on_loop(frame: Frame, coroutine: Coroutine[Any, Any, Any], *, to_the_end: bool = False) -> Any:
    try:
        frame.refuse_on_loop()
    except CallBlocked:
        coroutine.close()
        raise
    future = frame.future = frame.record.ports.loop.ready(coroutine)
    try:
        # Whoever cancelled the call may have found no future to cancel. Asked before it starts, since
        # a second cancel would cut its clean-up short.
        if frame.cancelled and not to_the_end:
            future.cancel()
        future.start()
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        wait([future], frame.record.ports.settings.interrupt_seconds)
        raise
    finally:
        frame.future = None
