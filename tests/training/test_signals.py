import signal
import threading

import pytest

from vitrail.training.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_kept(number):
    with StopSignals() as signals:
        assert signals.received is None
        signal.raise_signal(number)
        assert signals.received == number


def test_a_second_signal_acts_as_it_would_have_before():
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGTERM


def test_handlers_are_restored():
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with StopSignals():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
        with pytest.raises(ValueError, match="inside"), StopSignals():
            raise ValueError("inside")
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM] * 2
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGTERM)
            assert len(received) == 2
            signal.raise_signal(signal.SIGTERM)  # the second goes to whom it would have gone
        assert len(received) == 3
        assert signals.received == signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_changes_nothing():
    handlers, before = [], signal.getsignal(signal.SIGINT)

    def enter():
        with StopSignals() as signals:
            handlers.append(signal.getsignal(signal.SIGINT))
        handlers.append(signals.received)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [before, None]
