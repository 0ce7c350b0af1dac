"""What an exported folder holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor


class Content(NamedTuple):
    """The files of a folder before they are written."""

    texts: dict[str, str]
    """name of a file -> what it holds"""
    tensors: dict[str, Tensor]
    """of model.safetensors"""
    described: dict[str, Any]
    """what the texts tell of the model, as `import_weights` takes it"""
    notes: list[str]
    """a sentence for each thing that is not as in Vitrail"""


def as_json(content: Mapping[str, Any]) -> str:
    """The text of a JSON file that people may read."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
