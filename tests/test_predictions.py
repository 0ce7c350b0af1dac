import csv
import json
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vitrail.errors import CheckpointError, ConfigError
from vitrail.predictions import Prediction, check_output, write_parquet, write_predictions, write_rows

SEVEN = Prediction("scans/seven.png", "7", 0.5, (("7", 0.5), ("1", 0.25), ("9", 0.125), ("2", 0.0625), ("0", 0.03125)))
# Two classes only, and names that a careless writer would break on.
CAT = Prediction('Käfer, "rot"\n.png', "Ж<b>", 0.75, (("Ж<b>", 0.75), ("hund", 0.25)))
BROKEN = Prediction("x.png", None, None, error="x.png is not an image that can be read: it is empty")
UNSURE = Prediction("u.png", "hund", 0.5, (("hund", 0.5), ("katze", 0.5)), sure=False)
ALL = [SEVEN, CAT, BROKEN, UNSURE]
COLUMNS = (
    "image label probability label_2 probability_2 label_3 probability_3 label_4 probability_4 label_5 probability_5"
)
COLUMNS = [*COLUMNS.split(), "decision", "sure", "error"]


def rows() -> list[dict[str, object]]:
    """What a table of ALL holds."""
    found: list[dict[str, object]] = []
    for prediction in ALL:
        row: dict[str, object] = dict.fromkeys(COLUMNS)
        row |= {"image": prediction.image, "error": prediction.error}
        for rank, (label, probability) in enumerate(prediction.top, start=1):
            suffix = "" if rank == 1 else f"_{rank}"
            row |= {f"label{suffix}": label, f"probability{suffix}": probability}
        found.append(row)
    decisions = [("7", True), ("Ж<b>", True), (None, None), ("not sure", False)]
    for row, (decision, sure) in zip(found, decisions, strict=True):
        row |= {"decision": decision, "sure": sure}
    return found


class Tags(HTMLParser):
    """Which tags are open, and the text; a tag closed out of turn fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_csv_reads_back(tmp_path):
    path = tmp_path / "out.csv"
    write_predictions(path, ALL)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == COLUMNS
        found = list(reader)
    assert found == [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows()]


def test_json_lines_read_back(tmp_path):
    path = tmp_path / "out.jsonl"
    write_predictions(path, ALL)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [prediction.to_dict() for prediction in ALL]
    assert "Käfer" in lines[1]
    assert json.loads(lines[0])["top"][1] == {"label": "1", "probability": 0.25}


def test_parquet_reads_back(tmp_path):
    path = tmp_path / "out.parquet"
    write_predictions(path, ALL)
    table = pq.read_table(path)
    assert table.column_names == COLUMNS
    assert table.to_pylist() == rows()
    assert {table.schema.field(name).type for name in COLUMNS if name.startswith("probability")} == {pa.float64()}
    assert table.schema.field("sure").type == pa.bool_()


def test_columns_without_a_value_keep_their_types(tmp_path):
    path = tmp_path / "out.parquet"
    write_predictions(path, [BROKEN])
    schema = pq.read_table(path).schema
    assert (schema.field("label").type, schema.field("probability_5").type) == (pa.string(), pa.float64())


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_name_of_any_bytes_is_written(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_predictions(path, [Prediction("caf\udce9.png", "a", 1.0, (("a", 1.0),))])
    read = {".csv": path.read_bytes, ".jsonl": path.read_bytes, ".parquet": lambda: str(pq.read_table(path)).encode()}
    assert rb"caf\udce9.png" in read[suffix]()


def test_the_suffix_may_be_in_capitals(tmp_path):
    write_predictions(tmp_path / "OUT.CSV", [SEVEN])
    assert (tmp_path / "OUT.CSV").read_text(encoding="utf-8").startswith("image,label,")


@pytest.mark.parametrize("name", ["out.xlsx", "out", "csv", ".csv"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"does not end in \.csv, \.jsonl, \.parquet; predictions are written as one"):
        check_output(tmp_path / name)
    with pytest.raises(ConfigError, match="does not end in"):
        write_predictions(tmp_path / name, ALL)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"new does not exist; make that folder first, or write elsewhere"):
        check_output(tmp_path / "new" / "out.csv")


def test_an_old_file_is_replaced(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")
    write_predictions(path, [SEVEN])
    assert "old" not in path.read_text(encoding="utf-8")


def test_what_cannot_be_replaced_is_left_as_it_was(tmp_path):
    folder = tmp_path / "out.csv"
    (folder / "in the way").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"out\.csv could not be written"):
        write_predictions(folder, ALL)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert (folder / "in the way").is_dir()


def test_write_parquet_takes_numbers_for_probabilities_and_text_for_the_rest(tmp_path):
    path = tmp_path / "out.parquet"
    write_parquet(path, {"label": ["a", "b"], "probability_a": [0.25, 1.0]})
    assert pq.read_table(path).to_pydict() == {"label": ["a", "b"], "probability_a": [0.25, 1.0]}


def test_to_dict_is_what_json_can_hold():
    assert json.loads(json.dumps(BROKEN.to_dict())) == {
        "image": "x.png",
        "label": None,
        "probability": None,
        "top": [],
        "decision": None,
        "sure": None,
        "error": "x.png is not an image that can be read: it is empty",
    }
    assert CAT.to_dict()["top"] == [{"label": "Ж<b>", "probability": 0.75}, {"label": "hund", "probability": 0.25}]


def test_a_notebook_shows_the_classes_as_text():
    page = Tags(CAT._repr_html_())
    assert page.seen.count("tr") == 2
    assert "b" not in page.seen
    assert {"Ж<b>", "75.0%", 'Käfer, "rot"\n.png'} <= {*page.texts}


def test_a_notebook_shows_the_error():
    page = Tags(Prediction("<i>.png", None, None, error="<i>.png & co: it is empty")._repr_html_())
    assert page.texts == ["<i>.png", ": <i>.png & co: it is empty"]
    assert page.seen == ["p", "b"]


def test_a_decision_is_the_label_unless_the_model_is_not_sure():
    assert [prediction.decision for prediction in ALL] == ["7", "Ж<b>", None, "not sure"]
    assert UNSURE.label == "hund"
    assert Tags(UNSURE._repr_html_()).texts[0] == "u.png: not sure"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_rows_of_other_columns(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_rows(path, ("image", "score"), [{"image": "a", "score": 0.5}, {"image": "ß", "score": 0.25}])
    if suffix == ".csv":
        assert path.read_text(encoding="utf-8") == "image,score\na,0.5\nß,0.25\n"
    else:
        assert pq.read_table(path).to_pydict() == {"image": ["a", "ß"], "score": [0.5, 0.25]}


# Several labels

BEACH = Prediction(
    "b.png", "sea", 0.9, (("sea", 0.9), ("sky", 0.7)), probabilities={"sky": 0.7, "sea": 0.9, "sun": 0.5}
)
NOTHING = Prediction("n.png", "sun", 0.4, (("sun", 0.4),), probabilities={"sky": 0.1, "sea": 0.2, "sun": 0.4})
LABELS = ("sky", "sea", "sun")


def test_labels_are_the_classes_above_a_half_the_most_probable_first():
    assert (BEACH.labels, BEACH.decision, BEACH.label) == (("sea", "sky"), "sea, sky", "sea")
    assert (NOTHING.labels, NOTHING.decision, NOTHING.label) == ((), "", "sun")
    assert [prediction.labels for prediction in (SEVEN, BROKEN)] == [None, None]
    assert len({BEACH, NOTHING, SEVEN}) == 3


def test_json_has_labels_and_all_probabilities_only_where_there_may_be_several():
    assert list(BEACH.to_dict()) == [*SEVEN.to_dict(), "labels", "probabilities"]
    assert BEACH.to_dict()["labels"] == ["sea", "sky"]
    assert BEACH.to_dict()["probabilities"] == {"sky": 0.7, "sea": 0.9, "sun": 0.5}


def test_tables_of_several_labels(tmp_path):
    for suffix in (".csv", ".parquet", ".jsonl"):
        write_predictions(tmp_path / f"out{suffix}", [BEACH, NOTHING, BROKEN], LABELS)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        first, second, third = csv.DictReader(file)
    assert list(first) == ["image", "labels", "probability_sky", "probability_sea", "probability_sun", "error"]
    assert (first["labels"], first["probability_sea"]) == ("sea|sky", "0.9")
    assert (second["labels"], third["labels"], third["error"]) == ("", "", BROKEN.error)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("labels").to_pylist() == [["sea", "sky"], [], None]
    assert table.column("probability_sun").to_pylist() == [0.5, 0.4, None]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [prediction.to_dict() for prediction in (BEACH, NOTHING, BROKEN)]


def test_empty_columns_of_lists_have_their_type(tmp_path):
    write_predictions(tmp_path / "out.parquet", [BROKEN], LABELS)
    assert pq.read_schema(tmp_path / "out.parquet").field("labels").type == pa.list_(pa.string())
