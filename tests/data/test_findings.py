from vitrail.data.findings import Finding, sorted_findings, summarise


def copies(kind, split, *groups, **details):
    return [Finding(kind, split, group, " and ".join(group), details) for group in groups]


def test_many_findings_of_a_kind_are_one_sentence():
    found = copies("exact_duplicate", "all", ("a", "b"), ("c", "d", "e"), exact=True)
    found += copies("near_duplicate", "train", ("f", "g", "h", "i"), exact=False)
    found += copies("conflicting_labels", "train/test", ("j", "k"), exact=False)
    found += copies("shared_between_splits", "train/test", ("j", "k"), exact=False, num_first=1)
    assert summarise(found) == [
        "Exact copies: 3 (a = b, c = d = e)",
        "Near copies of train: 3 (f ~ g ~ h)",
        "Nearly equal pixels under different labels across train and test: 1 (j ~ k)",
        "In train as well as in test, nearly equal: 1 image (j ~ k)",
    ]


def test_other_findings_speak_for_themselves():
    found = [Finding("mode", "train", ("a", "b"), "Stored as grey of train")]
    found += [Finding("dark", "train", (name,), f"{name} is very dark") for name in "abcd"]
    found += [Finding("size", "all", ("e",), "e is 8x8")]
    assert summarise(found) == [
        "Stored as grey of train",
        "Very dark of train: 4 (a, b, c and 1 more)",
        "Odd sizes: 1 (e is 8x8)",
    ]


def test_findings_are_sorted_by_weight_then_split():
    found = [
        *copies("dark", "all", ("a",)),
        *copies("exact_duplicate", "test", ("b",)),
        *copies("exact_duplicate", "train", ("c",), ("b",)),
        *copies("shared_between_splits", "train/test", ("d",)),
    ]
    told = [(one.kind, one.images[0]) for one in sorted_findings(found, ["train", "test", "all"])]
    assert told == [
        ("shared_between_splits", "d"),
        ("exact_duplicate", "c"),
        ("exact_duplicate", "b"),
        ("exact_duplicate", "b"),
        ("dark", "a"),
    ]
