"""Near copies of training images, as the report tells of them, group by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bundle.errors import InputError
from bundle.evaluation.memorisation import GroupRows, Memorised, Pair, memorisation_by_group
from bundle.evaluation.readings import Readings

Entry = dict[str, Any]
NUM_CLOSEST = 10
QUANTILE = 0.01  # of the hold-out's distances to training images


def copies(made: Readings, training: Readings, holdout: Readings, groups: Sequence[str], space: str) -> Entry:
    """Excess of generated images beside a training image, and the closest pairs; the judge says whose an image is.

    Each group is held against its own hold-out; a copy of anybody's training image counts. Where nothing can be said,
    ``reason`` says why.
    """
    everybody = np.arange(len(training))
    rows = {
        group: GroupRows(everybody, np.flatnonzero(holdout.groups == g), np.flatnonzero(made.groups == g))
        for g, group in enumerate(groups)
    }
    rows = {group: own for group, own in rows.items() if len(own.generated)}
    features = (training.features[space], holdout.features[space], holdout.subjects, made.features[space])
    nothing = {"space": space, "quantile": QUANTILE, "groups": {}, "pairs": []}
    try:
        found = memorisation_by_group(*features, rows, QUANTILE)
    except InputError as error:  # found after everything else was measured: say so, and go on
        return {**nothing, "reason": str(error)}
    known = {group: measured for group, measured in found.items() if measured is not None}
    if not known:
        return {**nothing, "reason": "No group has images and the 100 hold-out subjects that it takes."}
    pairs = [_pair_entry(pair, group, training) for group, measured in known.items() for pair in measured.closest]
    pairs.sort(key=lambda pair: pair["distance"] / pair["threshold"])
    return {
        "space": space,
        "quantile": QUANTILE,
        "groups": {group: _group_entry(measured) for group, measured in known.items()},
        "unmeasured": [group for group in groups if group not in known],
        "pairs": pairs[:NUM_CLOSEST],
    }


def _group_entry(measured: Memorised) -> Entry:
    return {
        "n": measured.n,
        "training": measured.training,
        "holdout": measured.holdout,
        "share": measured.share,
        "excess": measured.excess,
        "flagged": measured.flagged,
        "threshold": measured.threshold,
    }


def _pair_entry(pair: Pair, group: str, training: Readings) -> Entry:
    return {
        "generated": pair.generated,
        "training": pair.training,
        "training_subject": str(training.subjects[pair.training]),
        "group": group,
        "distance": pair.distance,
        "threshold": pair.distance / pair.ratio,
    }
