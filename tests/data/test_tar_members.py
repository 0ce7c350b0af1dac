import contextlib
import io
import logging
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tar_shards import BLOCK, add, write_shard

from vitrail.data.tar_members import Member, list_members
from vitrail.errors import DataError


def members_of(path: Path) -> list[Member]:
    with path.open("rb") as file:
        return list(list_members(file, path.stat().st_size, path.name))


@pytest.fixture
def two(tmp_path):
    """A tar of two files."""
    return write_shard(tmp_path / "two.tar", {"a.jpg": b"12345", "ants/b.jpg": bytes(1000)})


def test_files_are_where_they_are(two):
    assert members_of(two) == [Member("a.jpg", BLOCK, 5), Member("ants/b.jpg", 3 * BLOCK, 1000)]
    assert two.read_bytes()[BLOCK : BLOCK + 5] == b"12345"


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_other_letters(tmp_path, kind):
    name = "/".join(["långt namn"] * 30) + "/ä.png"
    with tarfile.open(tmp_path / "x.tar", "w", format=kind) as archive:
        add(archive, name, b"12")
    assert [(member.name, member.size) for member in members_of(tmp_path / "x.tar")] == [(name, 2)]


def test_names_that_are_no_utf8_can_be_written(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        add(archive, "./fån.png", b"12")
    assert [member.name for member in members_of(tmp_path / "x.tar")] == ["f\\xe5n.png"]


def test_links_and_paths_outside_are_unfit(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind in (("ants", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        fifo = tarfile.TarInfo("f.jpg")
        fifo.type = tarfile.FIFOTYPE
        archive.addfile(fifo)
        for name in ("/etc/a.jpg", "../b.jpg", "a..b.jpg"):
            add(archive, name, b"x")
    assert [(member.name, member.unfit) for member in members_of(tmp_path / "x.tar")] == [
        ("l.jpg", "a link"),
        ("h.jpg", "a link"),
        ("f.jpg", "no plain file"),
        ("/etc/a.jpg", "a path that leads outside"),
        ("../b.jpg", "a path that leads outside"),
        ("a..b.jpg", ""),
    ]


def test_an_empty_tar_has_no_files(tmp_path):
    assert members_of(write_shard(tmp_path / "x.tar", {})) == []


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "x.tar").touch()
    with pytest.raises(DataError, match=r"^x\.tar is empty; download or write it again$"):
        members_of(tmp_path / "x.tar")


@pytest.mark.parametrize(("mode", "command"), [("w:gz", "gunzip"), ("w:bz2", "bunzip2"), ("w:xz", "unxz")])
def test_a_compressed_tar_is_refused(tmp_path, mode, command):
    with tarfile.open(tmp_path / "x.tar", mode) as archive:
        add(archive, "a.jpg", b"12345")
    with pytest.raises(DataError, match=rf"^x\.tar is compressed, .*; unpack it to a plain \.tar with {command}$"):
        members_of(tmp_path / "x.tar")


def test_what_is_no_tar_is_refused(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"<html>" * 200)
    with pytest.raises(DataError, match=r"^x\.tar is no tar file that can be read; download or write it again$"):
        members_of(tmp_path / "x.tar")


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (100, r"is no tar file that can be read"),
        (BLOCK + 3, r"is cut off: it ends at byte 515, within a\.jpg, which goes on to byte 517; download or write"),
        (BLOCK + 5, r"is cut off: it ends at byte 517; download"),
        (2 * BLOCK + 7, r"is cut off: it ends at byte 1,031; download"),
        (3 * BLOCK + 999, r"is cut off: it ends at byte 2,535, within ants/b\.jpg, which goes on to byte 2,536"),
    ],
)
def test_a_tar_that_is_cut_off_is_refused_with_the_byte(two, length, message):
    two.write_bytes(two.read_bytes()[:length])
    with pytest.raises(DataError, match=rf"^two\.tar {message}"):
        members_of(two)


def test_a_tar_cut_off_between_two_files_is_warned_of(two, caplog):
    two.write_bytes(two.read_bytes()[: 2 * BLOCK])
    assert len(members_of(two)) == 1
    assert caplog.messages == ["two.tar has no end mark at byte 1,024; it may be cut off between two files"]


def test_a_damaged_header_is_not_the_end(two):
    content = bytearray(two.read_bytes())
    content[2 * BLOCK + 3] ^= 255
    two.write_bytes(content)
    with pytest.raises(DataError, match=r"^two\.tar is damaged at byte 1,024; download or write it again$"):
        members_of(two)


def test_several_tars_in_one_are_refused(two):
    two.write_bytes(two.read_bytes() * 2)
    with pytest.raises(DataError, match=r"^two\.tar goes on after its end at byte 2,560, as several tar files in one"):
        members_of(two)


@given(st.data())
def test_any_damage_is_an_error_of_ours_or_none(data):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        add(archive, "a.jpg", b"12345")
        add(archive, "n" * 120 + ".jpg", bytes(600))
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, 4095))] = data.draw(st.integers(0, 255))
    logging.getLogger("vitrail").setLevel(logging.ERROR)
    with contextlib.suppress(DataError):
        for member in list_members(io.BytesIO(content), len(content), "x.tar"):
            assert 0 <= member.offset <= member.offset + member.size <= len(content)
