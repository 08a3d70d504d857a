"""The report: one dictionary, written as JSON.

`share_row`, `side` and `judge_card` turn what was measured into entries, `assemble` joins them. Proportions are
adjusted counts and not clipped, so one may lie just outside [0, 1]; intervals lie inside. What could not be measured is
null. `table.py` shows the report in a terminal, `grid.py` the images beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bundle.errors import InputError
from bundle.evaluation.bands import across_seeds
from bundle.evaluation.estimate import Estimate
from bundle.evaluation.faithfulness import LesionShare
from bundle.evaluation.prevalence import (
    AdjustedCount,
    JudgeRates,
    Shares,
    adjusted_count,
    as_vector,
    detectable_gap,
    gap,
    tipping_point,
    verdict,
)
from bundle.evaluation.quality import agreement, ambiguity
from bundle.files import write_whole

Entry = dict[str, Any]
SCHEMA_VERSION = "2"  # of report.schema.json


def share_row(calls: ArrayLike, rates: JudgeRates, target: Shares, **labels: Any) -> Entry:
    """Labels (such as `scale`, or `iteration` and `seconds`), n, proportion, 95 % interval and gap of (N,) calls."""
    return {**labels, **_shares(adjusted_count(calls, rates), target)}


def side(
    probabilities: ArrayLike,
    guide_calls: ArrayLike | None,
    rates: JudgeRates,
    target: Shares,
    margin: float = 0.05,
    true_count: AdjustedCount | None = None,
    kid: Mapping[str, Estimate] | None = None,
    clip_similarity: float | None = None,
    lesions: Mapping[str, LesionShare | None] | None = None,
    facts: Mapping[str, Entry] | None = None,
    guidance: Sequence[Entry] = (),
    **sections: Any,
) -> Entry:
    """All that is reported of one set of images, `before` or `after`.

    Args:
        probabilities: (N, G) of the judge.
        guide_calls: (N,) group index called by the guide, where there is one.
        rates: the judge's, measured with calls (argmax).
        target: proportion of each group.
        margin: of the verdict.
        true_count: adjusted count of a truth that is no classifier, where there is one.
        kid: distance to the target cohort by feature space.
        clip_similarity: mean cosine to the reference's images.
        lesions: from `lesion_faithfulness`.
        facts: by what prompts ask for, the share of images that show it.
        guidance: rows of `share_row(..., scale=...)`.
        sections: entries that other modules make.
    """
    calls = np.asarray(probabilities).argmax(axis=1)
    count = adjusted_count(calls, rates)
    true = None if true_count is None else _shares(true_count, target)
    return {
        **_shares(count, target),
        "verdict": verdict(count, target, margin),
        "tipping_point": tipping_point(count, target, margin),
        "standard_error": float(count.standard_error.max()),
        "sampling_error": float(np.sqrt(count.sampling_variance[-1])),
        "raw_proportion": _named(count, count.raw),
        "true_proportion": true and true["proportion"],
        "true_ci95": true and true["ci95"],
        "true_gap": true and true["gap"],
        "ambiguity": ambiguity(probabilities),
        "agreement": None if guide_calls is None else agreement(calls, guide_calls),
        "kid": _estimates(kid or {}),
        "clip_similarity": clip_similarity,
        "faithfulness": {**_faithfulness(lesions or {}), "facts": dict(facts or {})},
        "guidance": list(guidance),
        "cautions": [*_cautions(count), *_shift_cautions(count, true_count), *_lesion_cautions(lesions or {})],
        **sections,
    }


def judge_card(rates: JudgeRates, auc: float | None) -> Entry:
    """Who judged: AUC, subjects and, per group, the share of its subjects called rightly.

    For two groups `sensitivity` is that of the second group and `specificity` that of the first, else both are null.
    """
    recall = np.diag(rates.matrix)
    two = len(recall) == 2  # the pair of words means nothing for more groups
    return {
        "auc": auc,
        "subjects": int(rates.subjects.sum()),
        "sensitivity": recall[1] if two else None,
        "specificity": recall[0] if two else None,
        "recall": dict(zip(rates.groups, recall, strict=True)),
    }


def assemble(
    *,
    attribute: str,
    groups: Sequence[str],
    target: Shares,
    prompts: Sequence[str],
    judge: Entry,
    real: Entry,
    before: Entry | None,
    after: Entry,
    change: AdjustedCount | None,
    kid_change: Mapping[str, Estimate],
    seconds: Mapping[str, float],
    versions: Mapping[str, str],
    margin: float = 0.05,
    trajectory: Sequence[Entry] = (),
    strata: Mapping[str, Entry] | None = None,
    **more: Any,
) -> Entry:
    """Join the parts into the report; `real` has `ambiguity`, `agreement` and `n`, and may have `kid` by feature space.

    `change` is that of the proportions in pairs of images, from `paired_difference`; `strata` holds, where targets are
    given within strata, each one's target and its shares before and after.

    Numbers of numpy and torch become Python's, and what is not finite becomes None. `more` is kept as it is.
    """
    report = {
        "schema_version": SCHEMA_VERSION,
        "attribute": attribute,
        "groups": list(groups),
        "target": dict(zip(groups, as_vector(target, groups), strict=True)),
        "margin": margin,
        "prompts": list(prompts),
        "judge": judge,
        "detectable_gap": detectable_gap(after["standard_error"]),
        "real": {**real, "kid": _estimates(real.get("kid", {}))},
        "before": before,
        "after": after,
        "change": change and {"value": _named(change, change.value), "ci95": _named(change, change.interval(0.95))},
        "kid_change": _estimates(kid_change),
        "trajectory": list(trajectory),
        "seconds": dict(seconds),
        "versions": dict(versions),
        **({"strata": strata} if strata else {}),
        **more,
    }
    return _plain(report)


def across_reports(seed: int, after: Entry, others: Sequence[str | Path], groups: Sequence[str]) -> Entry | None:
    """This run beside reports of the same evaluation with other seeds; None without any.

    Raises InputError for a file that is no report of the same groups, or of a seed that is there already.
    """
    if not others:
        return None
    rows = [_seed_row(seed, after)]
    for path in map(Path, others):
        try:
            found = json.loads(path.read_text())
            row = _seed_row(found["seed"], found["after"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: no report of an evaluation ({error}); give report.json of other seeds"
            ) from error
        if list(found["groups"]) != list(groups) or row["seed"] in [other["seed"] for other in rows]:
            raise InputError(f"{path}: of other groups, or of seed {row['seed']} again; give one report a seed")
        rows.append(row)
    last = groups[-1]
    summary = across_seeds([row["proportion"][last] for row in rows], [row["sampling_error"] for row in rows])
    return {"values": rows, "mean": summary.mean, "between_sd": summary.between, "n": len(rows)}


def _seed_row(seed: int, after: Entry) -> Entry:
    return {"seed": seed, **{key: after[key] for key in ("n", "proportion", "gap", "verdict", "sampling_error")}}


def package_versions(*names: str) -> dict[str, str]:
    """Installed version of each package named."""
    return {name: version(name) for name in names}


def write_json(report: Entry, path: str | Path) -> Path:
    """Write the report, whole or not at all, and return its path; what is not finite is written as null."""
    return write_whole(path, (json.dumps(_plain(report), indent=2, allow_nan=False) + "\n").encode())


def _shares(count: AdjustedCount, target: Shares) -> Entry:
    return {
        "n": count.n,
        "proportion": _named(count, count.value),
        "ci95": _named(count, count.interval(0.95)),
        "gap": gap(count.value, as_vector(target, count.groups)),
    }


def _named(count: AdjustedCount, values: ArrayLike) -> Entry:
    return dict(zip(count.groups, np.asarray(values).tolist(), strict=True))


def _estimates(estimates: Mapping[str, Estimate]) -> Entry:
    return {name: {"value": x.value, "ci95": [x.low, x.high]} for name, x in estimates.items()}


def _faithfulness(shares: Mapping[str, LesionShare | None]) -> Entry:
    entry: Entry = {"lesion_prompted": None, "lesion_not_prompted": None}
    for key, measured in shares.items():
        if measured is not None:
            entry[key] = measured.share.value
            entry[f"{key}_ci95"] = [measured.share.low, measured.share.high]
            entry[f"{key}_by_group"] = measured.by_group
            entry[f"{key}_raw"], entry[f"{key}_n"] = measured.raw, measured.n
    return entry


def _cautions(count: AdjustedCount) -> list[str]:
    """What a reader must know before believing the proportion; the sizes are rules of thumb."""
    youden = float(count.rates.matrix.diagonal().sum() - 1)
    found = {
        "the judge cannot tell the groups apart: the proportion is not measurable": not count.measurable,
        "such a judge cannot call so many of one group: it errs differently on these images": not count.inside_hull,
        "fewer than 100 subjects of a group to measure the judge on": count.rates.subjects.min() < 100,
        "fewer than 500 images": count.n < 500,
        "the judge is weak: recalls sum to less than 1.4": len(count.groups) == 2 and youden < 0.4,
    }
    return [text for text, holds in found.items() if holds]


def _shift_cautions(count: AdjustedCount, true_count: AdjustedCount | None) -> list[str]:
    """Judge and truth err on their own, so their difference has the sum of their variances."""
    if true_count is None:
        return []
    away = np.abs(count.value - true_count.value)
    if not np.any(away > 1.96 * np.hypot(count.standard_error, true_count.standard_error)):
        return []
    points = f"{100 * away.max():.1f} points"
    return [f"judge and true share differ by {points}: one of them errs otherwise on these images than on real ones"]


def _lesion_cautions(shares: Mapping[str, LesionShare | None]) -> list[str]:
    text = "the lesion reader errs differently on these images than on real ones: the share with a lesion is rough"
    return [text] if any(share is not None and not share.plausible for share in shares.values()) else []


def _plain(value: Any) -> Any:
    """The same value made of what JSON has: no numpy or torch scalars, no tuples, None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Estimate):
        return _plain({"value": value.value, "ci95": [value.low, value.high]})
    if is_dataclass(value):
        return _plain({field.name: getattr(value, field.name) for field in fields(value)})
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
