import json

from vitrail.exporting.content import as_json


def test_text_is_json_that_people_can_read() -> None:
    text = as_json({"classes": ["späteř"]})
    assert "späteř" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"classes": ["späteř"]}
