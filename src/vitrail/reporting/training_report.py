"""The report that a training ends with: in bounded time, and without harm to a run that has its result already."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from typing import Any

from vitrail.classifier import Classifier
from vitrail.data.dataset import ImageSet, spread
from vitrail.errors import Interrupted
from vitrail.runs import RunDirectory

logger = logging.getLogger(__name__)

REPORT_SECONDS = 4.0  # of all of it on one idle core, of which no more than half for passes through the model
REPORT_IMAGES = 400  # whose evaluation takes as long as all passes for it, where that half is not enough for them
LEAST_INSPECTED, MOST_INSPECTED = 100, 1000  # images of a split that the model is inspected with


def report_training(
    directory: RunDirectory,
    classifier: Classifier,
    result: Mapping[str, Any],
    train: ImageSet,
    images: Mapping[str, ImageSet],
) -> None:
    """Write report.html and README.md of a run that has just finished; what goes wrong is said in a sentence, no more.

    `train` may be larger than the model takes it; `images` are those of the other splits. The model is inspected with
    fewer images where it is slow. Raises Interrupted after Ctrl-C.
    """
    from vitrail.reporting.run_report import forward_seconds, write_report  # with matplotlib, which takes a second

    preprocess = classifier.card.preprocess
    write = f"write it with: vitrail report {shlex.quote(str(directory.path))}"
    passes = REPORT_SECONDS / 2 / max(forward_seconds(result), 1e-9)
    count = round(min(max(passes / 3, LEAST_INSPECTED), MOST_INSPECTED))
    try:
        chosen = {"train": train, **images}
        inspected = {name: found.take(spread(len(found), count)) for name, found in chosen.items()}
        if inspected["train"].pixels.shape[1:] != preprocess.shape:  # it is a canvas that crops are cut from
            if preprocess.fit == "native":  # the padding of which is marked at the canvas's size
                del inspected["train"]
            else:
                inspected["train"] = inspected["train"].resized(preprocess)
        passes += REPORT_IMAGES - sum(map(len, inspected.values()))  # what is left, to explain answers
        for sentence in write_report(directory, classifier, images, inspected=inspected, passes=passes).missing:
            logger.info("%s", f"The report lacks something: {sentence}")
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped by SIGINT; the run has finished, and lacks only its report; {write}") from None
    except Exception as error:  # whatever it is, the run has finished
        reason = " ".join(str(error).split()) or type(error).__name__
        logger.warning("%s", f"The report was not written ({reason}); {write}")
