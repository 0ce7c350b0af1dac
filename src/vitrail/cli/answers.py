"""What `vitrail predict` prints: tables of predictions, of sorted folders, of suggestions; or all of it as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vitrail.cli.output import percent, print_line, print_table

if TYPE_CHECKING:
    from vitrail.labelling import Predictions
    from vitrail.predictions import Prediction
    from vitrail.sorting import Sorted
    from vitrail.suggestions import Suggestion


def to_json(predictions: Predictions) -> dict[str, Any]:
    """`predictions`; `suggestions` and `sorted` where they were asked for; `error` where images could not be read."""
    content: dict[str, Any] = {"predictions": [prediction.to_dict() for prediction in predictions]}
    if predictions.suggestions is not None:
        content["suggestions"] = [suggestion.to_dict() for suggestion in predictions.suggestions]
    if predictions.sorted is not None:
        content["sorted"] = predictions.sorted.to_dict()
    unreadable = sum(prediction.error is not None for prediction in predictions)
    if unreadable:
        content["error"] = f"{unreadable} of {len(predictions)} images could not be read"
    return content


def print_predictions(predictions: Sequence[Prediction]) -> None:
    """A row an image that could be read; where the model is not sure, the most probable class is first in `next`."""
    several = [prediction for prediction in predictions if prediction.labels is not None]
    if several:
        shares = [", ".join(f"{label} {percent(share)}" for label, share in prediction.top) for prediction in several]
        table = zip((one.image for one in several), (one.decision or "-" for one in several), shares, strict=True)
        print_table(("image", "labels", "most probable, %"), list(table))
        return
    rows = [
        (
            prediction.image,
            prediction.decision,
            f"{percent(prediction.probability)} %",
            ", ".join(f"{label} {percent(share)}" for label, share in prediction.top[int(prediction.sure) :]),
        )
        for prediction in predictions
        if prediction.probability is not None
    ]
    if rows:
        print_table(("image", "label", "probability", "next"), rows)


def print_sorted(done: Sorted) -> None:
    """How many images were copied or linked, how many were there before, and how many are in each folder."""
    counts = {
        "copied": done.copied,
        "hard-linked": done.hard_linked,
        "linked symbolically": done.soft_linked,
        "there already": done.present,
    }
    said = ", ".join(f"{count:,} {how}" for how, count in counts.items() if count)
    print_line(f"{sum(done.folders.values()):,} images are in {done.folder}{': ' * bool(said)}{said}")
    if done.folders:
        print_table(("folder", "images"), sorted(done.folders.items()))


def print_suggestions(suggestions: Sequence[Suggestion]) -> None:
    """A row an image, best first."""
    rows = [
        (suggestion.image, f"{suggestion.score:.3f}", f"{suggestion.margin:.3f}", suggestion.reason)
        for suggestion in suggestions
    ]
    if rows:
        print_table(("image", "score", "margin", "guess"), rows)
