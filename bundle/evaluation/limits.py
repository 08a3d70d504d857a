"""The limits of a report, in plain words, that follow from its numbers.

`limits` says nothing in general. Each of its sentences has a condition on the report's numbers, quotes them, and is
left out where the condition does not hold or where the numbers were not measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bundle.evaluation.wording import (
    SPACE,
    at,
    beyond,
    calibration,
    count,
    difference,
    estimate,
    known,
    minus,
    p_value,
    percent,
    points,
    share,
)

Entry = dict[str, Any]


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
                f"The corrected proportion of {name} came out at {minus(f'{100 * value:.1f}')}{SPACE}%, which cannot "
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
    if report.get("judge_training_known") is False:
        yield "Whom the judge learned from is not known: nobody checked that it had never seen those who measure it."
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
    called = {g: round(after["n"] * share) for g, share in (after.get("raw_proportion") or {}).items()}
    few = ", ".join(f"{found} {group}" for group, found in called.items() if found < 20)
    if after.get("quality") and not by_group:
        why = f"of {count(after['n'])} images the judge calls only {few}" if few else "too few people or images"
        yield f"Quality per group was not measured: {why}."
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
    facts = at(after, "faithfulness", "facts") or {}
    odd = [name for name, fact in facts.items() if fact.get("plausible") is False]
    if odd:
        yield (
            f"The reader of {', '.join(odd)} errs otherwise on these images than on real ones: its corrected shares "
            "lie outside 0 to 100 % and are shown cut."
        )
    obedience = after.get("obedience") or {}
    told, ideal = at(obedience, "difference"), obedience.get("judge_j")
    obeyed = at(obedience, "adjusted", "ci95")
    if known(at(told, "ci95")) and ideal is not None and known(obeyed) and obeyed[1] < 1:
        yield (
            f"Prompts that name a group are not always obeyed: they move the judge's calls by {difference(told)}, "
            f"and full obedience would move them by {points(ideal)}."
        )


def _copies(report: Entry) -> Iterator[str]:
    missing = at(report, "after", "memorisation", "unmeasured")
    if missing:
        yield f"Copies of training images were not looked for in {', '.join(missing)}: too few people or images."
    measured = at(report, "after", "memorisation", "groups") or {}
    flagged = {name: entry for name, entry in measured.items() if entry.get("flagged")}
    if flagged:
        named = "; ".join(f"{name} {difference(entry['excess'])} above chance" for name, entry in flagged.items())
        yield f"More generated images lie next to training images than unseen real images do: {named}."
