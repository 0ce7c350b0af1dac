import errno
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError, URLError

import pytest

from vitrail.data import hosts
from vitrail.data.hosts import Hosts, host_of, is_silence


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, as a list of one."""
    now = [1000.0]
    monkeypatch.setattr(hosts.time, "monotonic", lambda: now[0])
    return now


def silent(*urls):
    known = Hosts()
    for url in urls:
        known.fails(url, "no answer")
    return known


def test_a_host_is_a_scheme_a_name_and_a_port():
    assert host_of("HTTP://me:secret@Photos.example:8080/a/b?c#d") == "http://photos.example:8080"
    assert host_of("s3://bucket/a") == "s3://bucket"
    assert host_of("http://[x/a") == "http://[x"


def test_three_urls_in_a_row_are_enough_and_two_are_not(clock):
    assert silent("http://a/1", "http://a/2").silence("http://a/4") is None
    assert silent("http://a/1", "http://a/1", "http://a/1").silence("http://a/4") is None
    known = silent("http://a/1", "http://a/2", "http://a/3")
    assert known.silence("http://a/4") == (
        "http://a does not answer (3 requests in a row: no answer); see that it runs and can be reached from here, "
        "then try again",
        False,
    )
    assert known.silence("http://a:81/4") is known.silence("https://a/4") is None


def test_an_answer_in_between_counts(clock):
    known = silent("http://a/1", "http://a/2")
    known.answers("http://a/9")
    known.fails("http://a/3", "no answer")
    assert known.silence("http://a/4") is None
    known.fails("http://a/4", "no answer")
    known.fails("http://a/5", "no answer")
    assert known.silence("http://a/6")[1] is True


def test_after_its_rest_one_request_finds_out(clock):
    known = silent("http://a/1", "http://a/2", "http://a/3")
    clock[0] += hosts.REST_SECONDS
    assert known.silence("http://a/4") is None
    assert known.silence("http://a/5") is not None
    known.fails("http://a/4", "no answer")
    assert known.silence("http://a/5") is not None
    clock[0] += hosts.REST_SECONDS
    assert known.silence("http://a/4") is None
    known.answers("http://a/4")
    assert known.silence("http://a/5") is None


def test_other_urls_that_failed_make_a_host_doubtful():
    known = silent("http://a/1")
    assert known.is_doubtful("http://a/2")
    assert not known.is_doubtful("http://a/1")
    assert not known.is_doubtful("http://b/2")


def test_a_warning_for_each_host_and_not_for_thousands(caplog):
    known = Hosts()
    for number in range(40):
        for name in ("x", "y"):
            known.waits(f"http://{number}/{name}", "shown", "no answer")
    assert [record.message for record in caplog.records] == ["shown: no answer; it is tried again"] * hosts.NUM_TOLD


def test_many_threads_may_ask(clock):
    known = Hosts()

    def ask(number):
        known.fails(f"http://a/{number}", "no answer")
        known.answers(f"http://b/{number}")
        return known.silence(f"http://b/{number}")

    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(ask, range(400)))
    assert known.silence("http://a/x") is not None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), True),
        (URLError(TimeoutError("timed out")), True),
        (URLError(ConnectionRefusedError(errno.ECONNREFUSED, "refused")), True),
        (URLError(socket.gaierror(-2, "Name or service not known")), True),
        (OSError(errno.EHOSTUNREACH, "No route to host"), True),
        (HTTPError("http://a", 500, "no", None, None), False),  # type: ignore[arg-type]
        (ConnectionResetError(errno.ECONNRESET, "reset"), False),
        (ValueError(), False),
    ],
)
def test_what_is_silence(error, expected):
    assert is_silence(error) is expected
