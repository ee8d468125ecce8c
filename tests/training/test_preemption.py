"""Being told to stop, in one process; tests/reliability does it to real runs."""

import gc
import signal

import pytest

from vidflow.errors import Preempted
from vidflow.training import preemption


@pytest.fixture(autouse=True)
def as_before():
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    preemption._told.clear()


def test_a_stop_before_the_loop_ends_the_work_at_once():
    preemption.stop_at_once(99)
    with pytest.raises(Preempted, match="the same command goes on") as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 99


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_python_swallows_is_not_lost():
    """An exception out of a callback of the garbage collector is printed and forgotten."""
    preemption.stop_at_once(99)

    def swallow(phase, info):
        signal.raise_signal(signal.SIGTERM)

    gc.callbacks.append(swallow)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(swallow)
    with preemption.Notice() as notice:
        assert notice.reached(1)


def test_within_the_loop_a_stop_waits_for_the_step():
    with preemption.Notice() as notice:
        assert not notice.reached(1)
        signal.raise_signal(signal.SIGTERM)
        assert notice.reached(2)
    with preemption.Notice() as next_loop:  # a run's own, after that of its autoencoder
        assert next_loop.reached(1)
