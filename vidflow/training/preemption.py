"""Being told to stop: SIGTERM on one machine, and the notice that a pod's hosts agree on."""

import signal
from threading import Event
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from vidflow.errors import Preempted

_told = Event()  # a stop was asked for; never taken back, as a run may train an autoencoder in a loop before its own


class Notice:
    """Within its context SIGTERM no longer ends the process but is remembered, for the loop to ask after each step."""

    def __init__(self) -> None:
        self._before: Any = None

    def __enter__(self) -> "Notice":
        if jax.process_count() == 1:  # of several, JAX itself takes the signal, to tell the others
            self._before = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._before)

    def reached(self, step: int) -> bool:
        """Whether to stop after this step: the same step on all hosts, soon after any of them was told."""
        return _told.is_set() if jax.process_count() == 1 else multihost_utils.reached_preemption_sync_point(step)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        _told.set()


def stop_at_once(code: int) -> None:
    """From now on SIGTERM raises `Preempted` wherever the main thread is: for work whose files are whole or absent at
    any moment. Where Python swallows the exception, as in a callback of its garbage collector, the loop stops after its
    first step."""

    def stop(number: int, frame: FrameType | None) -> None:
        _told.set()
        raise Preempted("Told to stop: what was finished is kept, and the same command goes on.", code)

    if jax.process_count() == 1:
        signal.signal(signal.SIGTERM, stop)
