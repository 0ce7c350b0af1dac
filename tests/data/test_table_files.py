import codecs
import csv
import json
import string

import hypothesis.strategies as st
import pytest
from hypothesis import given

from vitrail.data.table_files import DelimitedTable, JsonLinesTable, check_columns
from vitrail.errors import DataError

BODY = "a.png,ant\nb.png,bee\n"


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_is_read_in_any_usual_encoding(tmp_path, encoding, end):
    text = f"image,label{end}été/ä.png,ант{end}".replace("\n", "\n")
    marks = {"utf-16-le-bom": codecs.BOM_UTF16_LE, "utf-16-be-bom": codecs.BOM_UTF16_BE}
    raw = marks[encoding] + text.encode(encoding[:9]) if encoding in marks else text.encode(encoding)
    table = DelimitedTable(write(tmp_path, "a.csv", raw))
    assert table.columns == ["image", "label"]
    assert table.read(["label", "image"]) == {"label": ["ант"], "image": ["été/ä.png"]}


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.TSV", "\t")])
def test_delimiters(tmp_path, name, delimiter):
    text = "image,label, note\n" + BODY.replace("\n", ",x y\n")
    table = DelimitedTable(write(tmp_path, name, text.replace(",", delimiter)))
    assert table.columns == ["image", "label", "note"]
    assert table.read(["note"]) == {"note": ["x y", "x y"]}


def test_tabs_alone_divide_tsv(tmp_path):
    table = DelimitedTable(write(tmp_path, "a.tsv", "image\tlabel, or class\na.png\tant, red\n"))
    assert table.read(["label, or class"]) == {"label, or class": ["ant, red"]}


@given(
    rows=st.lists(
        st.lists(st.text(string.printable + "é\u2028", max_size=8), min_size=2, max_size=2).filter(any), min_size=1
    )
)
def test_what_python_writes_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("tables") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image", "label"], *rows])
    table = DelimitedTable(path)
    read = table.read(["image", "label"])
    assert list(zip(read["image"], read["label"], strict=True)) == [(a.strip(), b.strip()) for a, b in rows]


def test_rows_are_found_by_their_line(tmp_path):
    text = 'image,label\n\na.png,"two\nlines"\n\nb.png,bee\n'
    table = DelimitedTable(write(tmp_path, "a.csv", text))
    assert table.read(["image"]) == {"image": ["a.png", "b.png"]}
    assert [table.place(row) for row in range(2)] == ["line 3", "line 6"]
    lines = JsonLinesTable(write(tmp_path, "a.jsonl", '\n{"image": "a"}\n\n\n{"image": "b"}\n'))
    assert [lines.place(row) for row in range(2)] == ["line 2", "line 5"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty; a table has a line of column names, and one for each image$"),
        (b"\n \n", "is empty; a table has"),
        (
            b"image,label\na,b\nx,caf\xe9\n",
            "is not UTF-8: line 3 holds the byte 0xe9; save it as UTF-8, su",
        ),
        (
            "image,label\na,b\n".encode("utf-16-le"),
            "is no text in UTF-8: it holds zero bytes; save the table as UTF-8$",
        ),
        (
            codecs.BOM_UTF16_LE + b"ab\x00\xd8c\x00",
            "begins as UTF-16, and goes on as something else; save it as UTF-8$",
        ),
        (
            b'image,label\na,"b\nc,d\n',
            "cannot be read as a table: unexpected end of data; a quote may be opened and not",
        ),
        (
            b"image,label\na,b,c\nd\n",
            "2 lines have not the 2 fields that the first line names, such as line 2, 'a,b,c'; ",
        ),
        (b"image,label\na,b\nd\n", "1 line has not the 2 fields that the first line names, such as line 3, 'd'; put"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, raw, message):
    path = write(tmp_path, "a.csv", raw)
    with pytest.raises(DataError, match=rf"a\.csv:? {message}"):
        DelimitedTable(path).read(["image"])


def test_values_are_as_json_has_them(tmp_path):
    rows = [{"image": "a", "label": 3}, {"label": ["x", "y"], "image": "b", "more": None}, {"image": "c"}]
    table = JsonLinesTable(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)), "utf-16"))
    assert table.columns == ["image", "label"]
    assert table.read(["label", "image"]) == {"label": [3, ["x", "y"], None], "image": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\n", r"a\.jsonl is empty; a table in JSON Lines has an object for each image, one a line$"),
        (
            '{"image": "a"}\n{"image": ',
            r"a\.jsonl: line 2 is no JSON \(Expecting value\); each line holds one whole obj",
        ),
        (
            '[{"image": "a"}]',
            r"a\.jsonl: line 1 holds no JSON object; write one for each image, one a line, such as \{",
        ),
        ('{"image": "a"}\n7', r"a\.jsonl: line 2 holds no JSON object"),
        ("[" * 100_000, r"a\.jsonl: line 1 is no JSON \(it is nested too deeply\)"),
    ],
)
def test_what_is_no_json_lines_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        JsonLinesTable(write(tmp_path, "a.jsonl", text)).read(["image"])


def test_doubled_keys_are_two_columns(tmp_path):
    assert JsonLinesTable(write(tmp_path, "a.jsonl", '{"label": 1, "label": 2}')).columns == ["label", "label"]


def test_missing_files_and_columns(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv cannot be opened: No such file or directory$"):
        DelimitedTable(tmp_path / "gone.csv")
    table = DelimitedTable(write(tmp_path, "a.csv", "image,label\n" + BODY))
    with pytest.raises(DataError, match=r"a\.csv has no column 'split'; its columns are image, label$"):
        check_columns(table, ["image", "split"])
