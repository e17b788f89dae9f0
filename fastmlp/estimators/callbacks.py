"""Whom a fit tells how it goes: the user's functions and objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

EVENTS = ("on_fit_begin", "on_epoch_end", "on_fit_end")


class Callbacks:
    """A function is called with the estimator after each epoch, an object at each event that it has a method of.

    One that returns True after an epoch ends the training.
    """

    def __init__(self, given: Any):
        self.given = () if given is None else tuple(given) if isinstance(given, Iterable) else (given,)
        for callback in self.given:
            if not callable(callback) and not any(callable(getattr(callback, event, None)) for event in EVENTS):
                raise ValueError(
                    f"callbacks: expected functions, or objects with a method {', '.join(EVENTS)}; got {callback!r}"
                )

    def tell(self, event: str, model: Any) -> bool:
        """Tell all of an event. Whether one answers that training is to end."""
        answers = []
        for callback in self.given:
            method = getattr(callback, event, callback if event == "on_epoch_end" and callable(callback) else None)
            if method is not None:
                answers.append(method(model) is True)
        return any(answers)
