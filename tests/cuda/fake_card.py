"""The stand-in's card: its memory, and the streams and graphs that say who may touch it when.

Memory is guarded on both sides, and NaN when it is new. What one stream wrote another may not touch before it waits.
While a stream is captured nothing is allocated or copied: launches are kept, and run when the graph is launched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
from cuemu import blas

GUARD = 1024  # bytes before and behind every array that no kernel may write
POISON = 0xFF  # as a float a NaN, as an index -1

DEVICES = 1
ticks = 0  # counts what is done on any stream
memory_limit = 2**40  # bytes that the card has; a test may lower it
memory_used = 0


class Device:
    """The only card."""

    compute_capability = "90"

    def __init__(self, number: int | None = None) -> None:
        self.id = number or 0
        if self.id >= DEVICES:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class OutOfMemoryError(MemoryError):
    """What CuPy raises where the card has no room."""


class Memory:
    """Guarded bytes, and what touched them last."""

    def __init__(self, size: int) -> None:
        global memory_used
        if Stream.capturing:
            raise RuntimeError("memory is allocated while a stream is captured: the graph would keep its address")
        if memory_used + size > memory_limit:
            raise OutOfMemoryError(
                f"Out of memory allocating {size:,} bytes (allocated so far: {memory_used:,} bytes)."
            )
        memory_used += size
        self.size = size
        self.bytes = np.full(size + 2 * GUARD, POISON, np.uint8)
        self.last: tuple[Stream, int] | None = None

    def __del__(self) -> None:
        global memory_used
        memory_used -= getattr(self, "size", 0)

    def touch(self, by: str) -> None:
        """The current stream reads or writes here. RuntimeError if another stream may not be done yet."""
        global ticks
        ticks += 1
        stream = Stream.current
        if self.last and self.last[0] is not stream:
            other, tick = self.last
            if max(stream.seen.get(id(other), 0), other.done) < tick:
                raise RuntimeError(f"{by}: another stream may still be at work on this array")
        self.last = stream, ticks


class Event:
    """A place in a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.tick, self.seen = stream, ticks, dict(stream.seen)

    def synchronize(self) -> None:
        self.stream.done = max(self.stream.done, self.tick)


class Stream:
    """An order of work. Everything runs at once; only the promises of order are kept track of."""

    null: Stream
    current: Stream
    capturing: list[Callable[[], object]] | None = None

    def __init__(self, *, non_blocking: bool = False) -> None:
        self.ptr = id(self) if non_blocking else 0
        self.seen: dict[int, int] = {}  # of other streams, up to which tick this one has waited for them
        self.done = 0  # the host has waited for all up to this tick
        self.outer: list[Stream] = []

    def __enter__(self) -> Stream:
        self.outer.append(Stream.current)
        Stream.current = self
        return self

    def __exit__(self, *_: object) -> None:
        Stream.current = self.outer.pop()

    def record(self) -> Event:
        return Event(self)

    def wait_event(self, event: Event) -> None:
        for other, tick in {**event.seen, id(event.stream): event.tick}.items():
            self.seen[other] = max(self.seen.get(other, 0), tick)

    def synchronize(self) -> None:
        if Stream.capturing is not None:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported")
        self.done = ticks

    def begin_capture(self) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if Stream.current is not self:
            raise RuntimeError("the captured stream is not the current one")
        Stream.capturing = []
        blas().fake_record(RECORDER)

    def end_capture(self) -> Graph:
        work, Stream.capturing = Stream.capturing, None
        blas().fake_record(ctypes.cast(None, type(RECORDER)))
        return Graph(work)


Stream.null = Stream.current = Stream()


class Graph:
    """Launches that were captured."""

    launched = 0

    def __init__(self, work: list[Callable[[], object]]) -> None:
        self.work = work

    def launch(self) -> None:
        Graph.launched += 1
        for run in self.work:
            run()


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def RECORDER(number: int) -> None:
    """A product is called while a stream is captured."""
    Stream.capturing.append(lambda: blas().fake_replay(number))


def refuse_in_capture(what: str) -> None:
    if Stream.capturing is not None:
        raise RuntimeError(f"the current stream is capturing, so {what} are disallowed")
