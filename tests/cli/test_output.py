import pytest

from vitrail.cli.output import accuracy_line, percent, print_json, print_table


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.0, "0.0"), (0.987, "98.7"), (0.9996, "99.9"), (0.99949, "99.9"), (0.9999999, "99.9"), (1.0, "100.0")],
)
def test_less_than_all_is_never_a_hundred_percent(fraction, text):
    assert percent(fraction) == text


def test_digits_after_the_point():
    assert percent(0.98765, 2) == "98.77"
    assert percent(0.999999, 2) == "99.99"


def test_the_line_of_an_accuracy():
    metrics = {"accuracy": 0.9814, "accuracy_ci95": [0.96, 1.0], "images": 12345}
    assert accuracy_line("test", metrics) == "test accuracy 98.1 % (95 % interval 96.0 to 100.0), 12,345 images"


def test_columns_are_aligned_numbers_to_the_right(capsys):
    print_table(("name", "n"), [("a", 5), ("long name", 1234)])
    assert capsys.readouterr().out == "name          n\na             5\nlong name  1234\n"


def test_json_is_ascii(capsys):
    print_json({"image": "Größe \udce9"})
    assert capsys.readouterr().out == '{"image": "Gr\\u00f6\\u00dfe \\udce9"}\n'
