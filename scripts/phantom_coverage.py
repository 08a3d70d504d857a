"""How often the adjusted count's interval holds the true share of images whose group is known without a judge.

    python -m scripts.phantom_coverage study    # after `make align`; writes its section of docs/results.md

Where a real judge meets generated images, label shift is an assumption, not a fact. On the phantom the true group of a
generated image can be read off its geometry, so sets of any true share can be made up, and the intervals and the
warnings held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from numpy.typing import ArrayLike, NDArray

from bundle.cohorts.slices import Slices
from bundle.errors import InputError
from bundle.evaluation.label_shift import label_shift_test
from bundle.evaluation.prevalence import (
    AdjustedCount,
    adjusted_count,
    judge_rates,
    tipping_point,
    verdict,
)
from bundle.evaluation.readings import Instruments, Readings, read
from bundle.evaluation.representation import REJECTED
from bundle.generation import Draws, draw
from bundle.images import Images
from bundle.prompts import neutral_caption
from scripts.jobs import markdown, read_json, replace_section, start, write_json
from scripts.results import RESULTS, percent

GROUPS = ("first", "second")
SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)
STRENGTHS = (0.1, 0.25)
MILD = ("decoded", "plain", "noised by 0.1")  # treatments that leave an image what it was
MEANS = ("covered", "rejected", "tipped", "silent", "false_alarm")
JSON, PAGE = RESULTS / "phantom_coverage.json", Path("docs/results.md")
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ImageCoverage:
    """What the repeats gave at one true share, with rates from one calibration; shares of the repeats but for two.

    `bias` is the mean error of the estimate and `width` the interval's mean width. `covered`: the interval holds the
    true share; `refuted`: the calls contradict label shift outright, so that the interval is the whole range;
    `rejected`: the label-shift test says no; `tipped`: a verdict other than "cannot tell" whose tipping point is below
    the largest shift between the mild calibrations; `silent`: the interval misses, and neither the test nor the tipping
    point warns of it; `false_alarm`: it holds, and one of them warns; `aligned`, `not_aligned`: the verdict with the
    true share as target, by which the second is always wrong.
    """

    share: float
    calibration: str
    covered: float
    width: float
    bias: float
    refuted: float
    rejected: float
    tipped: float
    silent: float
    false_alarm: float
    aligned: float
    not_aligned: float


def coverage_on_images(
    calls: ArrayLike,
    truth: ArrayLike,
    validation: Mapping[str, ArrayLike],
    validation_truth: ArrayLike | Mapping[str, ArrayLike],
    subjects: ArrayLike,
    shares: Sequence[float],
    subjects_each: int,
    images: int,
    repeats: int,
    seed: int,
    margin: float,
    rejects: Callable[[str, Rows, Rows], bool],
    mild: Sequence[str] | None = None,
) -> list[ImageCoverage]:
    """Make sets of known true share out of judged images, again and again, and count how often the interval is right.

    A set of share p has Binomial(images, p) images of the second group, drawn with replacement within either group, so
    that the images given are the model they come from. The judge is measured on whole subjects, drawn without
    replacement; give many times more than are drawn, for else the draws are too much alike and the coverage is that of
    the pool given, which may lie anywhere around 95 %.

    Args:
        calls: (N,) the judge's calls of generated images, 0 or 1.
        truth: (N,) the true groups of these images.
        validation: calls (M,) of the validation images by calibration, such as "plain", "decoded", "round trip".
        validation_truth: (M,) their true groups, by calibration where a treatment may change what an image shows.
        subjects: (M,) the person whom each shows.
        shares: true shares of the second group.
        subjects_each: subjects of either group that the judge is measured on.
        images: generated images of a set.
        repeats: sets per share; every calibration is tried on the same sets.
        seed: of all draws.
        margin: of the verdict, whose target is the true share.
        rejects: says whether the label-shift test rejects, given the calibration's name, the rows of the generated
            images (images,) and those of the validation images.
        mild: calibrations whose differences are held against the tipping point; all unless given.

    Returns one entry per share and calibration.

    Raises:
        ValueError: lengths differ, or a subject is in two groups.
        InputError: a group has no generated image, or fewer than `subjects_each` subjects.
    """
    pools = Pools(calls, truth, validation, validation_truth, subjects)
    pools.check(subjects_each)
    result = []
    for number, share in enumerate(shares):
        rng = np.random.default_rng([seed, number])
        found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in validation}
        for _ in range(repeats):
            generated, measured = pools.generated(rng, images, share), pools.measured(rng, subjects_each)
            counts = pools.counts(generated, measured)
            shift = largest_shift([counts[name] for name in (mild or counts)])
            for name, count in counts.items():
                found[name].append(_outcome(count, share, margin, shift, rejects(name, generated, measured)))
        result += [ImageCoverage(share, name, *map(float, np.mean(rows, axis=0))) for name, rows in found.items()]
    return result


class Pools:
    """Judged images of known group, of which sets are drawn; arguments as in `coverage_on_images`."""

    def __init__(
        self,
        calls: ArrayLike,
        truth: ArrayLike,
        validation: Mapping[str, ArrayLike],
        validation_truth: ArrayLike | Mapping[str, ArrayLike],
        subjects: ArrayLike,
    ) -> None:
        self.calls, self.truth = np.asarray(calls), np.asarray(truth)
        self.validation = {name: np.asarray(own) for name, own in validation.items()}
        by_name = isinstance(validation_truth, Mapping)
        self.shown = {n: np.asarray(validation_truth[n] if by_name else validation_truth) for n in self.validation}
        _, first, self.person = np.unique(np.asarray(subjects), return_index=True, return_inverse=True)
        lengths = {len(own) for own in (*self.validation.values(), *self.shown.values())}
        if len(self.calls) != len(self.truth) or lengths != {len(self.person)}:
            raise ValueError("calls, truth, validation: lengths differ; give one call and one true group per image")
        truth = next(iter(self.shown.values()))
        self.group = truth[first]
        if (self.group[self.person] != truth).any():
            raise ValueError("subjects: one is in two groups; sets of known share need subjects of one group")

    def check(self, subjects_each: int) -> None:
        """Raises InputError where a group has too few subjects, or no image."""
        for group in (0, 1):
            if (given := int((self.group == group).sum())) < subjects_each:
                raise InputError(f"subjects: group {group} has {given}, {subjects_each} are drawn; lower subjects_each")
            if not (self.truth == group).any():
                raise InputError(f"truth: no generated image of group {group}; give images of both")

    def generated(self, rng: np.random.Generator, images: int, share: float) -> Rows:
        """Rows of a set of images in which an image is of the second group with probability `share`."""
        second = rng.binomial(images, share)
        parts = ((0, images - second), (1, second))
        return np.concatenate([rng.choice(np.flatnonzero(self.truth == group), n) for group, n in parts])

    def measured(self, rng: np.random.Generator, subjects_each: int) -> Rows:
        """Rows of all validation images of as many subjects of either group."""
        drawn = [rng.choice(np.flatnonzero(self.group == g), subjects_each, replace=False) for g in (0, 1)]
        chosen = np.zeros(len(self.group), dtype=bool)
        chosen[np.concatenate(drawn)] = True
        return np.flatnonzero(chosen[self.person])

    def counts(self, generated: Rows, measured: Rows) -> dict[str, AdjustedCount]:
        """Adjusted count of the set by calibration."""
        known = self.person[measured], GROUPS
        rates = {n: judge_rates(own[measured], self.shown[n][measured], *known) for n, own in self.validation.items()}
        return {name: adjusted_count(self.calls[generated], own) for name, own in rates.items()}


def largest_shift(counts: Iterable[AdjustedCount]) -> float:
    """Largest absolute difference of a rate between any two calibrations; 0 for a single one."""
    pairs = combinations([count.rates.matrix for count in counts], 2)
    return max((float(np.abs(first - second).max()) for first, second in pairs), default=0.0)


def _outcome(count: AdjustedCount, share: float, margin: float, shift: float, rejected: bool) -> NDArray[np.float64]:
    """One repeat, in the order of the fields of `ImageCoverage`."""
    low, high = count.interval()[1]
    target = (1 - share, share)
    covered, refuted = low <= share <= high, not count.inside_hull
    said = verdict(count, target, margin)
    tipped = said != "cannot tell" and tipping_point(count, target, margin) < shift
    warned = rejected or tipped
    bias = count.value[1] - share
    flags = (refuted, rejected, tipped, not covered and not warned, covered and warned)
    return np.array([covered, high - low, bias, *flags, said == "aligned", said == "not aligned"], dtype=float)


def study(
    images: int = 2048,
    repeats: int = 500,
    subjects_each: int = 100,
    set_size: int = 1024,
    output_dir: str = "outputs/align",
) -> None:
    """Make images with the base and the tuned denoiser of ``output_dir``, judge them, and count.

    Args:
        images: of each denoiser.
        repeats: sets per share.
        subjects_each: of either sex, on whom the judge is measured.
        set_size: images of a set.
        output_dir: of an alignment.
    """
    evaluation = _evaluation(output_dir)
    people = _people(evaluation)
    draws = draw(evaluation.seed, "evaluation", images, evaluation.captions.shares, evaluation.latent_shape)
    rows = []
    for name, denoiser in evaluation.denoisers.items():
        made = _seen(evaluation, evaluation.maker.generated(denoiser, draws, name), name)
        known = {**people.seen, **_renoised(evaluation, people, denoiser, name)}
        found = _covered(made, known, people, (repeats, subjects_each, set_size), evaluation.margin)
        rows += [{"images": name, **asdict(row)} for row in found]
    design = {"images": images, "repeats": repeats, "subjects_each": subjects_each, "set_size": set_size}
    write_json({**design, "rows": rows}, JSON)
    table()


def table() -> None:
    """Write the section of docs/results.md again."""
    replace_section(PAGE, "phantom_coverage", section(read_json(JSON)))


def section(results: Mapping[str, Any]) -> str:
    """By denoiser and calibration: coverage over the shares, and how often a warning stood beside a miss."""
    rows = []
    for key in dict.fromkeys((row["images"], row["calibration"]) for row in results["rows"]):
        own = [row for row in results["rows"] if (row["images"], row["calibration"]) == key]
        worst = min(own, key=lambda row: row["covered"])
        mean = {name: float(np.mean([row[name] for row in own])) for name in MEANS}
        lowest = f"{percent(worst['covered'])} at {percent(worst['share'])}"
        bias = f"{100 * max((row['bias'] for row in own), key=abs):+.1f} points"
        rows.append((*key, percent(mean["covered"]), lowest, bias, *(percent(mean[name]) for name in MEANS[1:])))
    header = (
        "images",
        "judge measured on",
        "coverage",
        "lowest",
        "largest bias",
        "rejected",
        "tips",
        "silent misses",
        "false alarms",
    )
    low = [row for row in results["rows"] if row["covered"] < 0.9]
    silent = max((row["silent"] for row in low), default=0.0)
    told = (
        f"Of {len(results['rows'])} cells {len(low)} cover less than 90 %; there, at most {percent(silent)} of the sets"
        " miss without a warning of the test or the tipping point."
    )
    return f"{markdown(header, rows)}\n\n{told}"


@dataclass(frozen=True)
class Judged:
    """People's ``slices``, one each, what was ``seen`` of them as they are and through the autoencoder, and the
    ``threshold`` of the trait, midway between the means of women and men."""

    slices: Slices
    seen: Mapping[str, Readings]
    threshold: float


def _evaluation(output_dir: str) -> Any:
    parser = ConfigParser()
    parser.read_config("configs/evaluate.yaml")
    parser.update({"output_dir": output_dir})
    return parser.get_parsed_content("evaluation")


def _people(evaluation: Any) -> Judged:
    """One slice of every validation subject whose caption is a prompt."""
    texts = set(evaluation.captions.texts)
    slices = evaluation.validation.where(lambda row: neutral_caption(row) in texts).per_subject(1)
    decoded = _seen(evaluation, evaluation.maker.decoded(slices, "slices"), "decoded")
    sex, trait = evaluation.attribute.indices(slices.rows), decoded.read["trait"]
    plain = _seen(evaluation, slices.images, "plain")
    threshold = float(np.mean([trait[sex == group].mean() for group in (0, 1)]))
    return Judged(slices, {"decoded": decoded, "plain": plain}, threshold)


def _seen(evaluation: Any, images: Images, label: str) -> Readings:
    return read(images, Instruments({"judge": evaluation.judge}, {}, {"trait": evaluation.readers.trait}), label=label)


def _renoised(evaluation: Any, people: Judged, denoiser: Any, name: str) -> dict[str, Readings]:
    slices = people.slices
    noise = draw(evaluation.seed, "round trip", len(slices), evaluation.captions.shares, evaluation.latent_shape).noise
    draws = Draws(torch.from_numpy(evaluation._described(slices)), noise)
    found = {}
    for strength in STRENGTHS:
        images = evaluation.maker.renoised(denoiser, slices, draws, strength, name)
        found[f"noised by {strength:g}"] = _seen(evaluation, images, f"noised by {strength:g}")
    return found


def _covered(
    made: Readings, known: Mapping[str, Readings], people: Judged, design: tuple[int, int, int], margin: float
) -> list[ImageCoverage]:
    repeats, subjects_each, set_size = design
    shown = {name: (own.read["trait"] > people.threshold).astype(int) for name, own in known.items()}
    judged, subjects = made.probabilities["judge"], np.array(people.slices.subjects())

    def rejects(name: str, generated: Rows, measured: Rows) -> bool:
        scores = known[name].probabilities["judge"][measured]
        test = label_shift_test(judged[generated], scores, shown[name][measured], subjects[measured])
        return test.p_value < REJECTED

    return coverage_on_images(
        judged.argmax(1),
        (made.read["trait"] > people.threshold).astype(int),
        {name: own.calls() for name, own in known.items()},
        shown,
        subjects,
        SHARES,
        subjects_each,
        set_size,
        repeats,
        0,
        margin,
        rejects,
        MILD,
    )


if __name__ == "__main__":
    start({"study": study, "table": table})
