"""Evaluate the images of any model: a folder of PNG, JPEG, NIfTI or DICOM files against a real cohort.

    python -m scripts.evaluate --generated images/ --real cohort.json --judge models/judge.pt
    python -m scripts.evaluate --generated after/ --reference before/ --real cohort.json --judge judge.pt

``cohort.json`` is a datalist as scripts.prepare_cohort writes it. Writes report.html and its companions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.cohorts.record import read_datalist
from bundle.errors import InputError
from scripts.jobs import command, run, start

CONFIG = "configs/evaluate_images.yaml"
ROLES = {"people_role": "validation", "target_role": "target", "training_role": "source"}


def evaluate(
    generated: str,
    real: str,
    judge: str,
    reference: str | None = None,
    guide: str | None = None,
    prompts: str | None = None,
    target: Mapping[str, float] | None = None,
    output_dir: str = "outputs/evaluate_images",
    overlay: str | None = None,
    **options: Any,
) -> None:
    """Measure proportions, quality, faithfulness and memorisation by group, and write the report.

    Args:
        generated: folder of the images.
        real: datalist of real pictures. With a column role, those of the role validation measure the judge, those of
            target are compared with and aimed at, and those of source, if any, are what the generator learned from;
            without one everybody measures the judge and is compared with.
        judge: weights of an independent classifier (judge_def in configs/common.yaml).
        reference: folder of images before the tuning, or of another model, with the same file names.
        guide: weights of the classifier that the images were tuned with.
        prompts: CSV with the columns file and prompt.
        target: proportions, such as {male: 0.5}, in place of the cohort's.
        output_dir: of the report.
        overlay: a config laid over configs/evaluate_images.yaml, such as one with another judge_def.
        options: entries of the config, such as attribute or image_channels.
    """
    for name, path in (("generated", generated), ("reference", reference)):
        if path is not None and not Path(path).is_dir():
            raise InputError(f"--{name} {path}: no such folder; give the folder of the images")
    for name, path in (("judge", judge), ("guide", guide), ("prompts", prompts)):
        if path is not None and not Path(path).is_file():
            raise InputError(f"--{name} {path}: no such file; correct the path")
    given = {"reference": reference, "guide_file": guide, "prompts_file": prompts, "target": target}
    run(
        command(
            "evaluating",
            [CONFIG, *([overlay] if overlay else [])],
            generated=generated,
            datalist=real,
            judge_file=judge,
            output_dir=output_dir,
            **{name: value for name, value in given.items() if value is not None},
            **_roles(real),
            **options,
        )
    )


def _roles(datalist: str) -> dict[str, str]:
    """Who serves for what; everybody for all where the datalist names no roles."""
    found = {record.get("role") for record in read_datalist(datalist, ["image"], {}, ("mask",), unique="image")}
    if found == {None}:
        return {}  # as in the config
    for role in (ROLES["people_role"], ROLES["target_role"]):
        if role not in found:
            raise InputError(f"--real {datalist}: nobody has the role '{role}'; give somebody, or leave out all roles")
    return {key: role for key, role in ROLES.items() if role in found}


if __name__ == "__main__":
    start(evaluate)
