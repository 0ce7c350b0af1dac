"""Tables as data: each format trained on and tested, and what can be wrong with one."""

import io
import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

OPTIONS = ("--recipe", "digits", "--epochs", "2", "--set", "model.embed_dim=16", "--set", "model.depth=1")
FAST = (*OPTIONS, "--set", "training.batch_size=16", "--set", "model.image_size=8")


@pytest.fixture
def rows(tmp_path, write_tree) -> list[dict[str, object]]:
    """Rows of 40 images in ./photos/img, of two classes and eight patients."""
    write_tree(tmp_path / "photos", {"img/ant": 20, "img/bee": 20})
    return [
        {"photo": f"img/{label}/{number:03d}.png", "kind": label, "part": part(number), "patient": f"p{number % 8}"}
        for label in ("ant", "bee")
        for number in range(20)
    ]


def part(number):
    return {0: "test", 1: "validation"}.get(number % 4, "train")


def write_csv(path, rows, delimiter=",", encoding="utf-8"):
    lines = [delimiter.join(rows[0]), *(delimiter.join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding=encoding)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_paths(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_bytes(path, rows):
    pq.write_table(
        pa.Table.from_pylist([row | {"photo": (path.parent / row["photo"]).read_bytes()} for row in rows]), path
    )


def write_hub(path, rows):
    images = [row | {"photo": {"bytes": (path.parent / row["photo"]).read_bytes(), "path": None}} for row in rows]
    pq.write_table(pa.Table.from_pylist(images), path, row_group_size=7)


def write_urls(path, rows):
    write_jsonl(path, [row | {"photo": (path.parent / str(row["photo"])).absolute().as_uri()} for row in rows])


WRITERS = {
    "list.csv": write_csv,
    "semicolons.csv": lambda path, rows: write_csv(path, rows, ";", "utf-16"),
    "list.tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "list.jsonl": write_jsonl,
    "urls.jsonl": write_urls,
    "paths.parquet": write_paths,
    "bytes.parquet": write_bytes,
    "hub.parquet": write_hub,
}
COLUMNS = ("--set", "data.image_column=photo", "--set", "data.label_column=kind")
ALL = (*COLUMNS, "--set", "data.split_column=part")


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_is_trained_on_and_tested(vitrail, rows, name):
    WRITERS[name](Path("photos", name), rows)
    done = vitrail("train", f"photos/{name}", *ALL, *FAST, "--out", "run", "--json")
    assert done.code == 0, done.err
    result = done.json
    assert (result["dataset"], result["test"]["images"], result["validation"]["images"]) == (Path(name).stem, 10, 10)
    assert [row["class"] for row in result["test"]["per_class"]] == ["ant", "bee"]
    again = vitrail("evaluate", "run", "--json")
    assert again.json["test"] == result["test"]


def test_a_table_is_audited(vitrail, rows):
    write_csv(Path("photos/list.csv"), rows)
    audit = vitrail("audit", "photos/list.csv", *ALL, "--no-labels", "--json")
    assert audit.code == 0, audit.err
    assert audit.json["num_images"] == {"train": 20, "validation": 10, "test": 10}
    assert audit.json["counts"]["test"] == {"ant": 5, "bee": 5}


def test_a_run_remembers_its_columns(vitrail, rows, caplog):
    write_csv(Path("photos/list.csv"), rows)
    first = vitrail("train", "photos/list.csv", *COLUMNS, *FAST, "--out", "run", "--json").json
    with caplog.at_level(logging.INFO, "vitrail"):
        again = vitrail("train", "--recipe", "run", "--out", "again", "--json")
    assert again.json["test"] == first["test"]
    assert "This repeats run step by step" in caplog.text
    assert vitrail("evaluate", "run", "photos/list.csv", "--json").json["test"] == first["test"]
    more = [{"path": row["photo"], "label": row["kind"]} for row in rows]
    write_csv(Path("photos/more.csv"), more)
    done = vitrail("evaluate", "run", "photos/more.csv")
    assert done.code == 2
    assert "photos/more.csv has no column 'photo'" in done.error
    named = ("--set", "data.image_column=none", "--set", "data.label_column=label")
    assert vitrail("evaluate", "run", "photos/more.csv", *named, "--json").json["test"] == first["test"]
    assert (
        vitrail("probe", "run", "photos/more.csv", *named, "--json").json["test"]["images"] == first["test"]["images"]
    )
    assert vitrail("evaluate", "run", "photos/img", "--json").json["test"]["images"] == first["test"]["images"]


def test_groups_stay_in_one_split(vitrail, rows):
    write_csv(Path("photos/list.csv"), rows)
    done = vitrail("train", "photos/list.csv", *COLUMNS, "--set", "data.group_column=patient", *FAST, "--out", "run")
    assert done.code == 0, done.err
    splits = json.loads(Path("run/splits.json").read_text(encoding="utf-8"))["splits"]
    patient = {row["photo"]: row["patient"] for row in rows}
    seen = [{patient[name] for name in one["members"]["names"]} for one in splits.values()]
    assert all(not a & b for place, a in enumerate(seen) for b in seen[:place])


def test_a_table_of_paths_is_predicted(vitrail, rows):
    write_csv(Path("photos/list.csv"), rows)
    vitrail("train", "photos/list.csv", *COLUMNS, *FAST, "--out", "run")
    write_csv(Path("photos/new.csv"), [{"path": row["photo"]} for row in rows[:3]] + [{"path": "gone.png"}])
    done = vitrail("predict", "run", "photos/new.csv", "--json")
    assert done.code == 1
    predicted = done.json["predictions"]
    assert [Path(one["image"]).name for one in predicted] == ["000.png", "001.png", "002.png", "gone.png"]
    assert "gone.png does not exist" in predicted[3]["error"]
    vitrail("embed", "run", "photos/new.csv", "--output", "vectors.parquet")
    assert pq.read_table("vectors.parquet").num_rows == 4


def table(text: str, encoding: str = "utf-8") -> bytes:
    """A CSV file of two good rows and what follows."""
    return f"image,label\nimg/ant/000.png,ant\nimg/bee/000.png,bee\n{text}".encode(encoding)


def torn_parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": ["a.png"], "label": ["ant"]}), buffer)
    return buffer.getvalue()[:-9]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            b"photo,label\n",
            "has no column named image, img, file_name or the like; its columns are photo, label",
        ),
        ("a.csv", b"image,label,label\n", "has 2 columns named 'label'; rename all but one"),
        ("a.csv", b"image,label,class\n", "has several columns that may hold the labels, label, class; say which with"),
        (
            "a.csv",
            table("img/ant/001.png,7"),
            "the label of line 2 is the word 'ant', that of line 4 the number 7; name",
        ),
        (
            "a.csv",
            table("img/ant/001.png,été", "latin-1"),
            "is not UTF-8: line 4 holds the byte 0xe9; save it as UTF-8",
        ),
        (
            "a.csv",
            table("../secret.png,ant"),
            "1 path leads out of the table's folder, such as ../secret.png in line 4",
        ),
        ("a.csv", table("a,ant\nb,ant\nc,ant"), "3 of its 5 images are not there (a, b, c); a path is looked for from"),
        ("a.csv", table(",ant"), "1 row has no image in the column 'image' (line 4); name one in each row"),
        ("a.csv", table("img/ant/001.png,"), "1 row has no label (line 4); give each a label, or take it out"),
        ("a.csv", table("img/ant/000.png,bee"), "img/ant/000.png is 'ant' in line 2 and 'bee' in line 4; an image has"),
        ("a.csv", table("img/ant/001.png"), "1 line has not the 2 fields that the first line names, such as line 4"),
        ("a.csv", b"", "is empty; a table has a line of column names, and one for each image"),
        ("a.csv", b"img/ant/000.png,ant\n", "has no line of column names, it begins with 'img/ant/000.png, ant'"),
        ("a.jsonl", b'{"image": "img/ant/000.png", "la', "line 1 is no JSON (Unterminated string starting at)"),
        ("a.parquet", torn_parquet(), "is not a Parquet file that can be read; download or write it again"),
    ],
)
def test_what_can_be_wrong_with_a_table(vitrail, rows, name, content, message):
    path = Path("photos", name)
    path.write_bytes(content)
    for command in (("train", path, *FAST), ("audit", path)):
        done = vitrail(*command)
        assert done.code == 1
        assert done.out == ""
        assert message in done.error
        assert done.error.startswith(str(path))


def test_too_many_missing_files_stop_a_training(vitrail, rows):
    write_csv(Path("photos/list.csv"), rows)
    for row in rows[:3]:
        Path("photos", str(row["photo"])).unlink()
    done = vitrail("train", "photos/list.csv", *COLUMNS, *FAST)
    assert done.code == 1
    assert done.error.startswith("3 of the 40 images of list cannot be read (img/ant/000.png does not exist, ")
    assert done.error.endswith("mend or remove them, or leave them out with --set data.max_broken_rate=0.1")
    allowed = vitrail("train", "photos/list.csv", *COLUMNS, *FAST, "--set", "data.max_broken_rate=0.1")
    assert allowed.code == 0, allowed.err


def test_columns_that_are_wrong_are_wrong_usage(vitrail, rows):
    write_csv(Path("photos/list.csv"), rows)
    done = vitrail("train", "photos/list.csv", "--set", "data.image_column=foto")
    assert done.code == 2
    assert done.error == (
        "photos/list.csv has no column 'foto'. Did you mean 'photo'? Its columns are photo, kind, part, patient; "
        "choose one with --set data.image_column=NAME"
    )
    done = vitrail("train", "photos/img", "--set", "data.group_column=patient")
    assert done.code == 2
    assert done.error == "data.group_column=patient is for tables, and photos/img is none; leave it out"
