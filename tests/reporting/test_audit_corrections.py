import numpy as np
import pytest

from vitrail.data.audit import Audit
from vitrail.data.corrections import Corrections, corrected, read_corrections
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.findings import Finding
from vitrail.errors import ConfigError
from vitrail.reporting.audit_corrections import check_new_file, propose_corrections


def image_set(names, labels, contents=None):
    pixels = np.zeros((len(names), 4, 4, 1), np.uint8)
    pixels[:, 0, 0, 0] = range(len(names)) if contents is None else contents
    return ImageSet(pixels, np.array(labels, np.int64), tuple(names))


def audit_of(images, *findings, agreement=0.95):
    counts = dict.fromkeys(images, (1, 1))
    number = {split: len(found) for split, found in images.items()}
    return Audit("set", ("ant", "bee"), counts, number, {}, (), findings, {"label_check": {"agreement": agreement}})


def suspicion(name, ratio, split="train", label="bee"):
    details = {"label": "ant", "suggested": label, "label_probability": 1e-3, "probability": 1e-3 * ratio}
    return Finding("suspicious_label", split, (name,), f"{name} is odd", details)


def copies(kind, names, classes, split="train", exact=True):
    return Finding(kind, split, tuple(names), "equal", {"classes": classes, "exact": exact})


def read(text, tmp_path) -> Corrections:
    path = tmp_path / "fix.csv"
    path.write_text(text, encoding="utf-8")
    return read_corrections(path)


def actions(text, tmp_path):
    return {(line.what, line.action, line.label) for line in read(text, tmp_path).lines}


def test_what_is_sure_is_in_force_and_the_rest_is_to_be_looked_at(tmp_path):
    images = {"train": image_set(["a", "b", "c", "d"], [0, 0, 1, 1]), "test": image_set(["e", "f"], [0, 1])}
    found = audit_of(images, suspicion("a", 150), suspicion("b", 99), suspicion("e", 900, "test"), agreement=0.8)
    proposed = propose_corrections(found, images)
    assert (proposed.num_active, proposed.num_doubtful) == (1, 2)
    assert proposed.text == (
        "what,action,label,reason\na,drop,,a is odd\n# e,drop,,of the test split; e is odd\n# b,relabel,bee,b is odd\n"
    )
    assert actions(proposed.text, tmp_path) == {("a", "drop", "")}
    said = "x.csv holds 1 correction, and 2 suspicions to look at, behind #; look through it, then give it as "
    assert proposed.note(tmp_path / "x.csv").endswith(said + "--corrections")


def test_predictions_that_agree_with_few_labels_are_sure_of_nothing(tmp_path):
    images = {"train": image_set(["a", "b"], [0, 1])}
    proposed = propose_corrections(audit_of(images, suspicion("a", 150), agreement=0.49), images)
    assert (proposed.num_active, proposed.num_doubtful) == (0, 1)
    assert proposed.note(tmp_path).endswith(
        "was not written: nothing to correct is sure, and 1 suspicion is to look at"
    )


def test_predictions_that_agree_with_most_labels_are_sure_of_all(tmp_path):
    images = {"train": image_set(["a", "b"], [0, 1])}
    proposed = propose_corrections(audit_of(images, suspicion("a", 21), agreement=0.91), images)
    assert actions(proposed.text, tmp_path) == {("a", "relabel", "bee")}


def test_copies_are_dropped_but_for_the_first(tmp_path):
    images = {"train": image_set(["a", "b", "c", "d", "e"], [0, 0, 0, 1, 1], [1, 1, 1, 2, 3])}
    found = audit_of(images, copies("exact_duplicate", "abc", ["ant", "ant", "ant"]))
    assert actions(propose_corrections(found, images).text, tmp_path) == {("b", "drop", ""), ("c", "drop", "")}


def test_copies_under_several_labels_are_all_dropped_unless_one_is_known_to_be_wrong(tmp_path):
    images = {"train": image_set(["a", "b", "c", "d"], [0, 1, 0, 1], [1, 1, 2, 3])}
    both = [copies(kind, "ab", ["ant", "bee"]) for kind in ("exact_duplicate", "conflicting_labels")]
    found = audit_of(images, *both)
    assert actions(propose_corrections(found, images).text, tmp_path) == {("a", "drop", ""), ("b", "drop", "")}
    found = audit_of(images, suspicion("a", 500), *both)
    assert actions(propose_corrections(found, images).text, tmp_path) == {("a", "relabel", "bee")}
    near = audit_of(images, copies("conflicting_labels", "ab", ["ant", "bee"], exact=False))
    assert propose_corrections(near, images).num_active == 0


@pytest.mark.parametrize(
    "name", ["#1/a.jpg", "my, photo.jpg", 'a "b".jpg', "9f86d081884c7d65", " a.jpg", "a\\b.jpg", "été.jpg", "a\nb"]
)
def test_any_name_is_found_again(name, tmp_path):
    images = image_set([name, "x/other.jpg", "y"], [0, 1, 0])
    proposed = propose_corrections(audit_of({"all": images}, suspicion(name, 500, "all")), {"all": images})
    dataset = Dataset("set", ("ant", "bee"), ("all",), lambda _: images)
    assert corrected(dataset, read(proposed.text, tmp_path)).read("all").labels.tolist() == [1, 1, 0]


def test_a_name_of_two_splits_stands_for_neither():
    images = {"train": image_set(["a", "b"], [0, 1]), "validation": image_set(["a", "c"], [0, 1], [5, 6])}
    proposed = propose_corrections(audit_of(images, suspicion("a", 500)), images)
    content = images["train"].hashes[0]
    assert proposed.text.splitlines()[1] == f"{content},relabel,bee,a is odd"


def test_earlier_corrections_stay_and_are_not_contradicted(tmp_path):
    images = {"train": image_set(["p/a", "b", "c"], [0, 0, 1])}
    before = read("\ufeffwhat,action,label\na,relabel,ant\nwasp,rename,bee", tmp_path)
    found = audit_of(images, suspicion("p/a", 500), suspicion("b", 400))
    proposed = propose_corrections(found, images, before)
    assert proposed.text == (
        "what,action,label,reason\n"
        "what,action,label\na,relabel,ant\nwasp,rename,bee\n"
        "# p/a,relabel,bee,corrected already; p/a is odd\n"
        "b,relabel,bee,b is odd\n"
    )
    assert actions(proposed.text, tmp_path) == {
        ("a", "relabel", "ant"), ("wasp", "rename", "bee"), ("b", "relabel", "bee")
    }  # fmt: skip


def test_a_file_that_is_there_is_never_replaced(tmp_path):
    check_new_file(tmp_path / "new.csv")
    (tmp_path / "old.csv").write_text("by hand", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"old\.csv exists already; write to another file, or move that one away$"):
        check_new_file(tmp_path / "old.csv")
    with pytest.raises(ConfigError, match=r"none does not exist; make that folder first, or write elsewhere$"):
        check_new_file(tmp_path / "none" / "new.csv")
