"""The MI-CLAIM-GEN checklist, filled in as far as a report can.

Items are those of Miao et al., "The MI-CLAIM-GEN checklist for generative artificial intelligence in health" (Nature
Medicine 31, 2025; arXiv:2403.02558), in our own words and numbered by the checklist's parts and the order within them.
A report answers an item by its fields; what no measurement can answer is left to the author and said to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bundle.evaluation.wording import at, count, duration, known, p_value, percent, points

Entry = dict[str, Any]
Show = Callable[[Any], str]
AUTHOR = "author must fill"


@dataclass(frozen=True)
class Item:
    """An item: its number and part, what it asks, what each field of the report answers, and what is left to add."""

    number: str
    part: str
    text: str
    answers: Mapping[str, str]
    left: str

    @property
    def answer(self) -> str:
        """The answers field by field, or that the author must fill it in."""
        answered = "; ".join(f"{name}: {value}" for name, value in self.answers.items())
        return f"answered by {answered}" if answered else AUTHOR


@dataclass(frozen=True)
class _Question:
    text: str
    fields: Mapping[str, Show] = field(default_factory=dict)
    left: str = ""


def checklist(report: Entry) -> list[Item]:
    """The items with the report's answers; a field that is null or absent answers nothing."""
    items = []
    for part, (start, questions) in _PARTS.items():
        for order, question in enumerate(questions, 1):
            found = {name: (at(report, *name.split(".")), show) for name, show in question.fields.items()}
            answers = {name: show(value) for name, (value, show) in found.items() if value not in (None, {}, [])}
            items.append(Item(f"{start}.{order}", part, question.text, answers, question.left))
    return items


def to_markdown(report: Entry) -> str:
    """The checklist as Markdown: a table for each part."""
    return "\n".join(_lines(report, checklist(report)))


def _lines(report: Entry, items: Sequence[Item]) -> Iterator[str]:
    answered = sum(bool(item.answers) for item in items)
    yield f"# MI-CLAIM-GEN checklist: {report['attribute']}"
    yield f"\n{answered} of {len(items)} items are answered by the report, in part or whole; the author fills the rest."
    for part in dict.fromkeys(item.part for item in items):
        yield from (f"\n## {part}\n", "| Item | Asked | Answer | Author adds |", "| --- | --- | --- | --- |")
        for item in items:
            if item.part == part:
                cells = (item.number, item.text, item.answer, item.left)
                yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def _pairs(show: Show = str) -> Show:
    return lambda values: ", ".join(f"{name} {show(value)}" for name, value in values.items())


def _ends(ends: Sequence[float | None] | None) -> str:
    return f"{points(ends[0])} to {points(ends[1])}" if known(ends) else "not measurable"


def _flagged(groups: Mapping[str, Entry]) -> str:
    flagged = [name for name, entry in groups.items() if entry.get("flagged")]
    return f"more near-copies than by chance in {', '.join(flagged)}" if flagged else "no excess of near-copies found"


_SHIFT = {"after.label_shift.p_value": p_value, "judge.largest_shift": points}

_PARTS: dict[str, tuple[str, Sequence[_Question]]] = {
    "Study design (part 1)": (
        "1",
        (
            _Question("The clinical problem that the model is meant for"),
            _Question(
                "The research question",
                {"attribute": str, "target": _pairs(percent), "margin": points},
                "why this target and this margin",
            ),
            _Question("How cohorts were selected and the study designed, so that others can repeat it"),
            _Question("How labels came about: guidelines, experience of the annotators, their agreement"),
            _Question(
                "Kind of output: categories, numbers or unstructured",
                {"prompts": lambda prompts: f"unstructured, images from {count(len(prompts))} prompts"},
            ),
            _Question(
                "Characteristics of the cohorts, and whether they represent clinical practice",
                {"judge.subjects": count, "real.n": count},
                "a table of the cohorts and where they come from",
            ),
        ),
    ),
    "Resources and optimisation (part 2)": (
        "2",
        (
            _Question(
                "Every component: base models, embeddings, auxiliary models",
                {"weights": _pairs(), "judge.name": str, "second_judge.name": str},
                "architectures and sources",
            ),
            _Question("Origin and original format of all data for training, tuning and inference"),
            _Question(
                "Preprocessing, with randomisation and other transformations",
                {"seed": str, "how.notes": " ".join},
                "how images were prepared for training",
            ),
            _Question(
                "Independence of training, validation and test data, split by patient",
                {"judge.subjects": count, "after.memorisation.groups.all.holdout": count},
                "how subjects were divided among generator, guide, judge and hold-out",
            ),
        ),
    ),
    "Performance and evaluation (parts 3 and 4)": (
        "3-4",
        (
            _Question(
                "The state of the art that serves as baseline",
                {"weights.before": str, "before.n": count},
                "why these weights are the baseline",
            ),
            _Question(
                "Proposed model against baseline, with statistical significance",
                {"change.ci95": _pairs(_ends), "after.equivalence_p": p_value},
            ),
            _Question(
                "Evaluations made, and why the primary measure was chosen",
                {"after.verdict": str, "after.n": count, "after.tipping_point": points},
                "why the gap to the target is the primary measure",
            ),
            _Question("Human evaluation: guidelines, experience of the readers, their agreement"),
        ),
    ),
    "Model examination (part 5)": (
        "5",
        (
            _Question(
                "Interpretability, analysis of errors, and absence of undetected failure",
                {"judge.recall": _pairs(percent), "after.ambiguity": percent, **_SHIFT},
                "what failures look like",
            ),
            _Question("Discussion of the risk that the examination shows"),
            _Question(
                "Biases, privacy, security and other harm",
                {"after.by_group.worst": _pairs(), "after.memorisation.groups": _flagged},
                "security, and what was done about the harms found",
            ),
            _Question("Shifts of distribution and what they do to performance", _SHIFT, "shifts between clinics"),
            _Question("Evaluation after deployment"),
        ),
    ),
    "Reproducibility (part 6)": (
        "6",
        (
            _Question("Tier of data transparency: code and data, code with synthetic data, code alone, or neither"),
            _Question(
                "Hyperparameters, infrastructure, compute and its costs",
                {
                    "seed": str,
                    "versions": _pairs(),
                    "seconds": lambda parts: f"{duration(sum(parts.values()))} in all",
                },
                "hyperparameters, hardware and costs",
            ),
            _Question("A clinical model card: capabilities, intended use, limits, biases, risks"),
            _Question("Release of the weights, with terms of use", {"weights": _pairs()}, "repository and terms"),
        ),
    ),
}
