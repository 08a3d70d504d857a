"""Numbers in plain words: how a number is written, and the limits of a report that follow from its numbers.

`limits` says nothing in general. Each of its sentences has a condition on the report's numbers, quotes them, and is
left out where the condition does not hold or where the numbers were not measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Entry = dict[str, Any]

SPACE = "\u00a0"  # between a number and its unit, so that no line breaks there
NOTHING = "–"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def at(entry: Any, *keys: Any) -> Any:
    """What stands under the keys of nested mappings; None where any of them is absent or null."""
    for key in keys:
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    return entry


def clipped(value: float) -> float:
    """A proportion, which the report holds unclipped, as one that can be."""
    return min(max(value, 0.0), 1.0)


def count(value: int | None) -> str:
    """A number of things, with a comma between thousands."""
    return NOTHING if value is None else f"{value:,}"


def number(value: float | None) -> str:
    """Three significant digits; powers of ten below 0.0001, all digits of whole thousands."""
    if value is None:
        return NOTHING
    if abs(value) >= 999.5:
        return _minus(f"{value:,.0f}")
    digits, _, power = f"{value + 0.0:#.3g}".partition("e")
    return _minus(digits.rstrip(".")) + (f" × 10{str(int(power)).translate(SUPERSCRIPT)}" if power else "")


def percent(value: float | None) -> str:
    """A proportion in per cent with one decimal, cut to what a proportion can be."""
    return NOTHING if value is None else f"{100 * clipped(value):.1f}{SPACE}%"


def points(value: float | None) -> str:
    """A difference of proportions in percentage points with one decimal."""
    return NOTHING if value is None else f"{_minus(f'{100 * value:z.1f}')}{SPACE}points"


def p_value(value: float | None) -> str:
    """A p value; small ones as a bound."""
    return NOTHING if value is None else "p < 0.001" if value < 0.001 else f"p = {number(value)}"


def duration(seconds: float | None) -> str:
    """Seconds as seconds, minutes or hours."""
    if seconds is None:
        return NOTHING
    if seconds < 99.5:
        return f"{number(seconds)}{SPACE}s"
    minutes = round(seconds / 60)
    return f"{minutes}{SPACE}min" if minutes < 100 else f"{minutes // 60}{SPACE}h {minutes % 60}{SPACE}min"


def share(entry: Any, group: str, prefix: str = "") -> str:
    """The proportion of a group with its interval, from an entry with `proportion` and `ci95` by group."""
    return _share(at(entry, f"{prefix}proportion", group), at(entry, f"{prefix}ci95", group))


def share_estimate(estimate: Any) -> str:
    """A proportion with its interval, from an estimate."""
    return _share(at(estimate, "value"), at(estimate, "ci95"))


def estimate(entry: Any) -> str:
    """A number with its interval."""
    return _with_ends(at(entry, "value"), at(entry, "ci95"), number)


def difference(entry: Any) -> str:
    """A difference of proportions in points, with its interval."""
    ends = at(entry, "ci95")
    text = points(at(entry, "value"))
    return f"{text} ({_ends(ends, lambda x: _minus(f'{100 * x:z.1f}'))})" if known(ends) and text != NOTHING else text


def known(ends: Sequence[float | None] | None) -> bool:
    """Whether an interval was measured."""
    return bool(ends) and None not in ends


def beyond(ends: Sequence[float | None] | None, target: float | None, margin: float) -> bool:
    """Whether an interval lies wholly outside the margin around the target."""
    return known(ends) and target is not None and (ends[0] > target + margin or ends[1] < target - margin)


def limits(report: Entry) -> list[str]:
    """What the report's own numbers forbid to conclude, a sentence each; empty if nothing does.

    Args:
        report: as `report.assemble` returns it; whatever is null or absent is passed over.
    """
    parts = (_precision, _shift, _other_counts, _judge, _coverage_of_prompts, _runs, _quality, _groups, _copies)
    return [sentence for part in parts for sentence in part(report)]


def _precision(report: Entry) -> Iterator[str]:
    after, margin, group = report["after"], report["margin"], report["groups"][-1]
    found, ends, n = report.get("detectable_gap"), at(after, "ci95", group), after["n"]
    if found is not None and found > margin:
        yield (
            f"The smallest gap that would be found four times in five is {points(found)}, more than the margin of "
            f"{points(margin)}: gaps between the two can go unnoticed."
        )
    if known(ends) and ends[1] - ends[0] >= 1:
        yield f"The interval of {group} is 0 to 100{SPACE}%: the proportion was not measurable with this judge."
    elif known(ends) and after["verdict"] == "cannot tell":
        yield (
            f"The interval of {group}, {share(after, group)}, crosses the margin of {points(margin)} around the target "
            f"of {percent(report['target'][group])}: the data fit both verdicts."
        )
    if n < 500:
        yield f"Only {count(n)} images were judged; with fewer than 500 the sampling error alone is large."
    for name in report["groups"]:
        value = at(after, "proportion", name)
        if value is not None and not 0 <= value <= 1:
            yield (
                f"The corrected proportion of {name} came out at {_minus(f'{100 * value:.1f}')}{SPACE}%, which cannot "
                "be, and is shown cut: it is at the end of the range, or the judge errs differently on these images."
            )


def _shift(report: Entry) -> Iterator[str]:
    after, largest = report["after"], at(report, "judge", "largest_shift")
    tipping, test = after.get("tipping_point"), after.get("label_shift") or {}
    decided = after["verdict"] != "cannot tell"
    if test.get("rejected"):
        yield (
            f"The judge's scores on generated images are no mixture of its scores on real ones "
            f"({p_value(test['p_value'])}): its error rates do not carry over, and the verdict has lost its basis."
        )
    if decided and tipping is not None and largest is not None and tipping < largest:
        yield (
            f"The verdict falls if the judge's error rates change by {points(tipping)} on generated images; passing "
            f"real images through the generator already changed them by {points(largest)}."
        )
    if decided and tipping is not None and largest is None:
        yield (
            f"The verdict falls if the judge's error rates change by {points(tipping)} on generated images, and how "
            "much they do change was not measured by a round trip."
        )
    turned = [row for row in after.get("round_trip") or () if row.get("verdict") not in (None, after["verdict"])]
    if turned:
        yield (
            f"Under {len(turned)} of {len(after['round_trip'])} calibrations of the judge the verdict is another: "
            + "; ".join(f"'{row['verdict']}' with {calibration(row)} images" for row in turned)
            + "."
        )


def calibration(row: Entry) -> str:
    """Name of the images that a judge was measured on, with the strength of the noise."""
    strength = row.get("strength")
    return row["images"] if strength is None else f"{row['images']} (strength {strength:g})"


def _other_counts(report: Entry) -> Iterator[str]:
    after, group = report["after"], report["groups"][-1]
    for key, name in (("second_judge", "second judge"), ("guide", "guide")):
        other = after.get(key) or {}
        if other.get("differ"):
            yield (
                f"Judge and {name} differ by more than their errors explain: {group} is {share(after, group)} for the "
                f"judge and {share(other, group)} for the {name}; at least one of them errs otherwise on these images."
            )
    truth, ends = at(after, "true_proportion", group), at(after, "ci95", group)
    true_ends = at(after, "true_ci95", group)
    if truth is not None and known(ends) and known(true_ends) and (ends[0] > true_ends[1] or ends[1] < true_ends[0]):
        yield (
            f"The judge's share of {group}, {share(after, group)}, and the true share, "
            f"{share(after, group, 'true_')}, have intervals that do not meet."
        )


def _judge(report: Entry) -> Iterator[str]:
    judge, groups = report["judge"], report["groups"]
    subjects, recall = judge.get("subjects"), judge.get("recall") or {}
    if subjects is not None and subjects < 100 * len(groups):
        yield (
            f"The judge was measured on {count(subjects)} subjects, so on fewer than 100 of some group: its error "
            "rates are rough."
        )
    weak = {name: value for name, value in recall.items() if value is not None and value < 0.7}
    if weak:
        named = ", ".join(f"{percent(value)} of {name}" for name, value in weak.items())
        yield f"The judge is weak: it recognises {named}."
    ambiguous, real = report["after"].get("ambiguity"), at(report, "real", "ambiguity")
    if ambiguous is not None and real is not None and ambiguous > real + 0.05:
        yield (
            f"The judge is unsure of {percent(ambiguous)} of the generated images and of {percent(real)} of the real "
            "ones: some images may show no group clearly."
        )


def _coverage_of_prompts(report: Entry) -> Iterator[str]:
    after, margin, group = report["after"], report["margin"], report["groups"][-1]
    target = report["target"][group]
    if len(report["prompts"]) == 1:
        yield "All images come from one prompt; other wordings may give other proportions."
    rows = after.get("prompt_rows") or ()
    off = [row for row in rows if beyond(at(row, "ci95", group), target, margin)]
    if off:
        yield f"For {len(off)} of {len(rows)} prompts the interval of {group} lies wholly outside the margin."
    for name, stratum in (report.get("strata") or {}).items():
        if beyond(at(stratum, "after", "ci95", group), at(stratum, "target", group), margin):
            yield (
                f"Within {name}, {group} is {share(stratum['after'], group)} against a target of "
                f"{percent(stratum['target'][group])}."
            )
    away = [row for row in after.get("guidance") or () if beyond(at(row, "ci_simultaneous", group), target, margin)]
    if away and after["verdict"] == "aligned":
        scales = ", ".join(f"{row['scale']:g}" for row in away)
        yield f"At guidance scale {scales} the proportion lies outside the margin: 'aligned' is not said of that scale."


def _runs(report: Entry) -> Iterator[str]:
    seeds = report.get("seeds") or {}
    if not seeds:
        yield "The figures are of one run; how much they vary between seeds was not measured."
        return
    if seeds["n"] < 3:
        yield f"Only {seeds['n']} seeds were run: too few to say how much the result varies between runs."
    if seeds.get("between_sd") is not None and seeds["between_sd"] > report["margin"]:
        yield (
            f"Between seeds the proportion varies with a standard deviation of {points(seeds['between_sd'])}, more "
            f"than the margin of {points(report['margin'])}."
        )
    verdicts = [row.get("verdict") for row in seeds["values"]]
    if len(set(verdicts)) > 1:
        tally = ", ".join(f"{verdicts.count(name)} '{name}'" for name in sorted(set(verdicts), key=str))
        yield f"The {len(verdicts)} seeds do not agree on the verdict: {tally}."


def _quality(report: Entry) -> Iterator[str]:
    after = report["after"]
    for space, change in (report.get("kid_change") or {}).items():
        if known(at(change, "ci95")) and change["ci95"][0] > 0:
            yield f"Tuning moved the images away from the cohort: KID ({space}) rose by {estimate(change)}."
    for space, measured in (after.get("quality") or {}).items():
        kid, ceiling = at(measured, "kid"), at(report, "real", "quality", space, "kid")
        if known(at(kid, "ci95")) and known(at(ceiling, "ci95")) and kid["ci95"][0] > ceiling["ci95"][1]:
            yield (
                f"The images can be told from real ones: KID ({space}) is {estimate(kid)}, and between two sets of "
                f"real images {estimate(ceiling)}."
            )
    alike, real = at(after, "diversity", "ms_ssim"), at(report, "real", "diversity", "ms_ssim")
    if known(at(alike, "ci95")) and known(at(real, "ci95")) and alike["ci95"][0] > real["ci95"][1]:
        yield f"The images vary less than real ones: MS-SSIM of pairs is {estimate(alike)} against {estimate(real)}."


def _groups(report: Entry) -> Iterator[str]:
    after = report["after"]
    by_group = after.get("by_group") or {}
    n = by_group.get("n_each")
    if n is not None and n < 100:
        yield f"Quality per group rests on {n} images of each group; below 100 the differences are rough."
    if by_group.get("membership") == "judge" and n is not None:
        yield "Images were assigned to groups by the judge, whose errors blur differences between the groups."
    for space, entry in (by_group.get("difference") or {}).items():
        ends = at(entry, "kid", "ci95")
        if known(ends) and (ends[0] > 0 or ends[1] < 0):
            worst = at(by_group, "worst", space)
            yield (
                f"Quality differs between the groups: KID ({space}) by {estimate(entry['kid'])}"
                + (f", worst for {worst}." if worst else ".")
            )
    obedience = after.get("obedience") or {}
    told, ideal = at(obedience, "difference"), obedience.get("judge_j")
    if known(at(told, "ci95")) and ideal is not None and told["ci95"][1] < ideal:
        yield (
            f"Prompts that name a group are not always obeyed: they move the judge's calls by {difference(told)}, "
            f"and full obedience would move them by {points(ideal)}."
        )


def _copies(report: Entry) -> Iterator[str]:
    measured = at(report, "after", "memorisation", "groups") or {}
    flagged = {name: entry for name, entry in measured.items() if entry.get("flagged")}
    if flagged:
        named = "; ".join(f"{name} {difference(entry['excess'])} above chance" for name, entry in flagged.items())
        yield f"More generated images lie next to training images than unseen real images do: {named}."


def _share(value: float | None, ends: Sequence[float | None] | None) -> str:
    if value is None or not known(ends):
        return percent(value)
    return f"{percent(value)} ({_ends(ends, lambda x: f'{100 * x:z.1f}')})"


def _with_ends(value: float | None, ends: Sequence[float | None] | None, show: Any) -> str:
    return f"{show(value)} ({_ends(ends, show)})" if value is not None and known(ends) else show(value)


def _ends(ends: Sequence[float], show: Any) -> str:
    return f"{show(ends[0])} to {show(ends[1])}"


def _minus(text: str) -> str:
    return text.replace("-", "−")
