import re
import uuid
from pathlib import Path

import fsspec
import pytest
from loopback_files import LoopbackFiles

from vitrail.data import hosts, remote
from vitrail.data.hosts import Hosts
from vitrail.data.records import SourceError
from vitrail.data.remote import MissingError, UrlFacts, is_url, list_urls, read_range, read_url, shown_url, url_facts
from vitrail.errors import DataError


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(remote, "hosts", Hosts())


@pytest.fixture
def web():
    with LoopbackFiles({"a b/ä.png": bytes(range(256)), "empty": b""}).serving() as served:
        yield served


@pytest.fixture
def memory():
    """A folder of fsspec's memory, with two files."""
    root = f"memory:///{uuid.uuid4().hex}"
    for name in ("one.tar", "two.tar"):
        with fsspec.open(f"{root}/{name}", "wb") as file:
            file.write(name.encode())
    return root


@pytest.mark.parametrize("place", ["http://a/b", "s3://bucket/x.tar", "HTTPS://A", "hf://datasets/a/b"])
def test_urls(place):
    assert is_url(place)


@pytest.mark.parametrize("place", ["photos", "C:\\photos", "C://photos", "./a:b", "", Path("a"), "hf:owner/name"])
def test_paths_and_names_are_no_urls(place):
    assert not is_url(place)


def test_a_message_shows_no_secrets():
    assert shown_url("https://me:secret@host/a.tar?signature=x#y") == "https://host/a.tar"


# Over http


def test_a_file(web):
    assert read_url(f"{web.url}/a b/ä.png") == bytes(range(256))
    assert read_url(f"{web.url}/a%20b/%C3%A4.png?x=1#y") == bytes(range(256))
    assert read_url(f"{web.url}/empty") == b""


def test_a_file_whose_length_is_not_told(web):
    web.gives_lengths = False
    assert read_url(f"{web.url}/a b/ä.png") == bytes(range(256))


def test_a_part(web):
    assert read_range(f"{web.url}/a b/ä.png", 7, 3) == bytes([7, 8, 9])
    assert read_range(f"{web.url}/a b/ä.png", 300, 0) == b""
    assert web.requests == [("a b/ä.png", "bytes=7-9")]


@pytest.mark.parametrize(
    ("offset", "message"),
    [(250, "ends at byte 256, before byte 260$"), (256, "ends before the bytes that are asked for$")],
)
def test_a_part_beyond_the_end_is_refused(web, offset, message):
    with pytest.raises(DataError, match=message):
        read_range(f"{web.url}/a b/ä.png", offset, 260 - offset)
    assert len(web.requests) == 1


def test_what_is_known_of_a_file(web):
    facts = url_facts(f"{web.url}/a b/ä.png")
    assert facts.size == 256
    assert re.fullmatch(r'"-?\d+"', facts.version)
    assert url_facts(f"{web.url}/empty") == UrlFacts(0, "")
    web.files["a b/ä.png"] = bytes(256)
    assert url_facts(f"{web.url}/a b/ä.png").version != facts.version


def test_a_file_that_is_not_there_is_not_tried_again(web):
    with pytest.raises(MissingError, match=rf"^{web.url}/gone\.png does not exist$"):
        read_url(f"{web.url}/gone.png?token=secret")
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, r"the server refuses it \(HTTP 403\)$"), (400, "the server answers HTTP 400 Bad Request$")],
)
def test_a_refusal_is_final(web, status, message):
    web.statuses["empty"] = [status]
    with pytest.raises(DataError, match=message):
        read_url(f"{web.url}/empty")
    assert len(web.requests) == 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_fails_for_a_moment(web, status):
    web.statuses["a b/ä.png"] = [status, status]
    assert read_url(f"{web.url}/a b/ä.png") == bytes(range(256))


def test_a_server_that_fails_for_good(web):
    web.statuses["empty"] = [500] * 9
    message = rf"^{web.url}/empty cannot be read, tried 3 times: the server answers HTTP 500 Internal Server Error$"
    with pytest.raises(DataError, match=message):
        read_url(f"{web.url}/empty")
    assert len(web.requests) == 3


def test_a_url_that_hangs(web, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.05)
    web.hanging.add("empty")
    with pytest.raises(DataError, match=rf"^{web.url}/empty cannot be read, tried 3 times: no answer within 0\.05 s$"):
        read_url(f"{web.url}/empty")


def test_a_host_that_answers_nothing_is_soon_left_alone(web, monkeypatch, caplog):
    """One URL is tried three times, two more once; the other 97 are not asked for."""
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.05)
    web.hanging |= {f"{number}.jpg" for number in range(100)}
    messages = []
    for number in range(100):
        with pytest.raises(DataError, match="cannot be read") as caught:
            read_url(f"{web.url}/{number}.jpg")
        assert not isinstance(caught.value, SourceError)
        messages.append(str(caught.value))
    assert [path for path, _ in web.requests] == ["0.jpg"] * 3 + ["1.jpg", "2.jpg"]
    assert messages[1] == f"{web.url}/1.jpg cannot be read, tried once: no answer within 0.05 s"
    sentence = (
        f"cannot be read: {web.url} does not answer (3 requests in a row: no answer within 0.05 s); "
        "see that it runs and can be reached from here, then try again"
    )
    assert messages[3:] == [f"{web.url}/{number}.jpg {sentence}" for number in range(3, 100)]
    assert [record.message for record in caplog.records] == [
        f"{web.url}/0.jpg: no answer within 0.05 s; it is tried again"
    ]


def test_a_host_that_is_there_again_is_read(web, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(hosts, "REST_SECONDS", 0.0)
    web.hanging |= {"0", "1", "2", "3"}
    for name in ("0", "1", "2", "3"):
        with pytest.raises(DataError, match="no answer within"):
            read_url(f"{web.url}/{name}")
    web.hanging.clear()
    assert read_url(f"{web.url}/empty") == b""
    web.hanging.add("3")
    with pytest.raises(DataError, match=r"tried 3 times: no answer"):
        read_url(f"{web.url}/3")


def test_a_host_that_stops_answering_ends_the_reading(web, monkeypatch):
    """What was read of it remains; the rest is not taken for images that cannot be read."""
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.05)
    assert read_url(f"{web.url}/empty") == b""
    web.hanging |= {"0", "1", "2"}
    for name in ("0", "1", "2"):
        with pytest.raises(DataError, match="no answer within"):
            read_url(f"{web.url}/{name}")
    with pytest.raises(SourceError, match="does not answer"):
        read_url(f"{web.url}/empty")


def test_one_url_that_hangs_says_nothing_of_its_host(web, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.05)
    web.hanging.add("slow")
    for _ in range(4):
        with pytest.raises(DataError, match="tried 3 times: no answer within"):
            read_url(f"{web.url}/slow")
    assert read_url(f"{web.url}/empty") == b""


def test_a_server_that_fails_is_there(web):
    web.statuses |= {name: [500] * 3 for name in "abcd"}
    for name in "abcd":
        with pytest.raises(DataError, match="tried 3 times: the server answers HTTP 500"):
            read_url(f"{web.url}/{name}")
    assert read_url(f"{web.url}/empty") == b""


def test_an_answer_that_trickles(web, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.1)
    web.trickling.add("a b/ä.png")
    with pytest.raises(DataError, match=r"no answer within 0\.1 s$"):
        read_url(f"{web.url}/a b/ä.png")


def test_a_connection_that_breaks(web):
    web.cut["a b/ä.png"] = 2
    assert read_url(f"{web.url}/a b/ä.png") == bytes(range(256))
    web.cut["a b/ä.png"] = 9
    with pytest.raises(DataError, match=r"the connection broke after 128 of 256 bytes$"):
        read_url(f"{web.url}/a b/ä.png")


def test_an_answer_without_an_end(web, monkeypatch):
    monkeypatch.setattr(remote, "MAX_BYTES", 100)
    with pytest.raises(DataError, match=r"it has 256 bytes, more than 100$"):
        read_url(f"{web.url}/a b/ä.png")
    web.gives_lengths = False
    with pytest.raises(DataError, match=r"it has more than 100 bytes$"):
        read_url(f"{web.url}/a b/ä.png")


def test_a_server_that_gives_no_parts(web):
    web.gives_ranges = False
    with pytest.raises(DataError, match=r"the server gives whole files only, no parts of them; download it$"):
        read_range(f"{web.url}/a b/ä.png", 0, 3)
    with pytest.raises(DataError, match=r"the server gives whole files only"):
        url_facts(f"{web.url}/a b/ä.png")


def test_nobody_there(web):
    with pytest.raises(DataError, match=r"^http://127\.0\.0\.1:1/x cannot be read, tried 3 times: Connection refused$"):
        read_url("http://127.0.0.1:1/x")


@pytest.mark.parametrize("url", ["http://[x/a", "http://host:port/a"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(DataError, match=r"it is no valid URL \("):
        read_url(url)


def test_a_web_server_cannot_be_listed(web):
    with pytest.raises(DataError, match=r"cannot be listed, .*; write their numbers in braces, as in train-\{0000"):
        list_urls(f"{web.url}/*.tar")


# Other storage


def test_storage_of_another_kind(memory):
    assert read_url(f"{memory}/one.tar") == b"one.tar"
    assert read_range(f"{memory}/one.tar", 4, 3) == b"tar"
    assert url_facts(f"{memory}/one.tar").size == 7
    assert list_urls(f"{memory}/*.tar") == [f"{memory}/one.tar", f"{memory}/two.tar"] == list_urls(f"{memory}/")


def test_files_of_this_machine_by_url(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"0123")
    url = (tmp_path / "a.tar").as_uri()
    assert (read_url(url), read_range(url, 1, 2)) == (b"0123", b"12")
    assert url_facts(url) == UrlFacts(4, str((tmp_path / "a.tar").stat().st_mtime))


def test_storage_without_the_file(memory):
    for read in (read_url, url_facts):
        with pytest.raises(MissingError, match=rf"^{memory}/gone\.tar does not exist$"):
            read(f"{memory}/gone.tar")
    with pytest.raises(DataError, match=r"it ends at byte 7, before byte 8$"):
        read_range(f"{memory}/one.tar", 0, 8)
    with pytest.raises(DataError, match=r"it is a folder, not a file$"):
        url_facts(memory)


def test_storage_that_hangs(memory, web, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", lambda *_: web.ended.wait())
    with pytest.raises(DataError, match=r"tried 3 times: no answer within 0\.01 s$"):
        read_url(f"{memory}/one.tar")


def test_storage_that_is_not_known():
    with pytest.raises(DataError, match=r"^x3://bucket/a\.tar cannot be read: Protocol not known: x3$"):
        read_url("x3://bucket/a.tar")


def test_storage_whose_package_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(DataError, match=r"^s3://bucket/a cannot be read: it needs the package s3fs; pip install s3fs$"):
        read_url("s3://bucket/a")
