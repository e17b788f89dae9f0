"""The threads of this process, those too that `threading` does not know."""

import _thread
import time


def running():
    """How many there are beside the main one."""
    return _thread._count()


def settled(count):
    """Whether there are `count` at most, once those that are about to end have ended."""
    until = time.monotonic() + 2
    while running() > count and time.monotonic() < until:
        time.sleep(0.001)
    return running() <= count
