"""Memory that a call takes."""

import tracemalloc


def peak(call):
    """The most bytes that Python and NumPy held at once for what was made while `call` ran."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
