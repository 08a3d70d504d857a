"""The whole chain on real slices, TCGA-LGG as Buda et al. prepared it: train, align, evaluate, and what that is worth.

    python -m scripts.real_data --dataset_dir <folder that holds data.csv>

Resumable: a training that is complete is not run again, and images that were made are kept. The configs are those of
the phantom, with an overlay for this cohort. Weights and pictures stay in ``output_dir``; numbers go to
docs/results/tcga_lgg.json, and from there into docs/results.md.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser

from bundle.cohorts.record import deal_subjects
from bundle.cohorts.slices import Slices
from bundle.errors import InputError
from bundle.evaluation.discrimination import auc, by_subject, cross_validated, field_of_view, unexplained
from bundle.evaluation.estimate import Estimate
from bundle.evaluation.prevalence import detectable_with, images_needed, subjects_needed
from bundle.networks.cross_fitted import load_judge
from scripts.jobs import command, read_json, run, shown, start, write_json
from scripts.make_weights import CLIP, NEUTRAL_CLIP, Stage, is_complete, run_stage, stage_command
from scripts.real_data_page import write_section

OVERLAY = "configs/cohort_tcga_lgg.yaml"
MINUTES = 35
NUM_FOLDS = 5
CLAIM = 0.1  # the gap that one would like to speak of
CLASSIFIER = {"iterations": 350, "batch_size": 32}
NEUTRAL = {"clip_folder": "clip_neutral", "role": "guide", "held_out_role": "judge", "wordings": ["neutral"], "seed": 1}
ALIGN = {"iterations": 30}


def classifier(role: str, fold: int | None = None, **options: Any) -> Stage:
    """The training of the guide, or of the member of a cross-fitted classifier that never sees one fold."""
    name = role if fold is None else f"{role}_{fold}"
    part = {} if fold is None else {"fold": fold, "num_folds": NUM_FOLDS}
    settings = {"role": role, **part, **CLASSIFIER, **options}
    return Stage(name, f"{name}.pt", "classifier", "train_classifier.yaml", settings, ("autoencoder.pt",))


# `everyone` is the guide's small network, cross-validated over all patients; only the measurements use it.
STAGES = (
    Stage("autoencoder", "autoencoder.pt", "slice to latent and back", "train_autoencoder.yaml", {"iterations": 1500}),
    Stage("clip", CLIP, "both towers", "train_clip.yaml", {"iterations": 400}),
    Stage("clip_neutral", NEUTRAL_CLIP, "other features", "train_clip.yaml", {**NEUTRAL, "iterations": 300}),
    Stage(
        "diffusion", "denoiser.pt", "the base", "train_diffusion.yaml",
        {"iterations": 1500, "batch_size": 48}, ("autoencoder.pt", CLIP),
    ),
    classifier("guide"),
    *(classifier("judge", fold) for fold in range(NUM_FOLDS)),
    *(classifier("everyone", fold, network="$@guide_def.to(@device)") for fold in range(NUM_FOLDS)),
)  # fmt: skip


def main(
    dataset_dir: str,
    output_dir: str = "outputs/tcga_lgg",
    docs_dir: str = "docs",
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Run what is left of the chain, measure, and write the numbers down.

    Args:
        dataset_dir: the folder that holds ``data.csv``.
        output_dir: weights, pictures and caches, under the terms of the data.
        docs_dir: where ``results/tcga_lgg.json`` and ``results.md`` are written.
        options: config name -> entries that are set in it, such as {train_diffusion: {iterations: 4000}}.
    """
    output, options = Path(output_dir), dict(options or {})
    require_outside(output)
    shared = {"dataset_dir": dataset_dir, "outputs_dir": output_dir, "tracking_uri": f"sqlite:///{output}/mlflow.db"}
    train([_with(stage, options) for stage in STAGES], shared, output)
    align({**shared, **ALIGN, **options.get("align", {})}, output)
    run(command("evaluating", ["configs/evaluate.yaml", OVERLAY], **shared, **options.get("evaluate", {})))
    results = gather(read_config(shared), output)
    print(write_json(results, Path(docs_dir) / "results" / "tcga_lgg.json"))
    print(write_section(Path(docs_dir) / "results.md", results))


def require_outside(output: Path, root: Path = Path()) -> None:
    """Raise InputError for a folder of the bundle that git does not ignore: what is made there is not to be shared."""
    output, root = output.resolve(), root.resolve()
    if output.is_relative_to(root) and output.relative_to(root).parts[:1] not in (("outputs",), ("data",)):
        raise InputError(f"output_dir '{output}': it would hold restricted data; give a folder in outputs/")


def _with(stage: Stage, options: Mapping[str, Mapping[str, Any]]) -> Stage:
    return replace(stage, options={**stage.options, **options.get(Path(stage.config).stem, {})})


def train(stages: Sequence[Stage], shared: Mapping[str, Any], output: Path) -> None:
    """Run the stages that are not complete."""
    models, work = output / "models", output / "stages"
    words = {stage.name: stage_command(stage, OVERLAY, shared) for stage in stages}
    left = [stage for stage in stages if not is_complete(stage, words[stage.name], work, models)]
    print(f"{len(left)} of {len(stages)} trainings left: {', '.join(stage.name for stage in left) or 'none'}; then")
    print(f"alignment and evaluation. From nothing, about {MINUTES} minutes on two cores.", flush=True)
    for stage in stages:
        if not is_complete(stage, words[stage.name], work, models):
            run_stage(stage, words[stage.name], work, models)


def align(options: Mapping[str, Any], output: Path) -> None:
    """Run the alignment, continue it, or leave it when it is complete; from the start when anything has changed."""
    words, folder = command("training", ["configs/align.yaml", OVERLAY], **options), output / "align"
    weights = {file: entry["sha256"] for file, entry in read_json(output / "models" / "manifest.json").items()}
    begun = {"command": shown(words), "weights": weights}
    if read_json(folder / "begun.json") != begun:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(begun, folder / "begun.json")
    if not (folder / "model.pt").is_file():
        run(words)


def read_config(shared: Mapping[str, Any]) -> Callable[[str], Any]:
    """Entries of the evaluation's config by name, as the evaluation had them."""
    parser = ConfigParser()
    parser.read_config(["configs/evaluate.yaml", OVERLAY])
    parser.update(dict(shared))
    parser.get_parsed_content("initialize")
    return parser.get_parsed_content


def gather(get: Callable[[str], Any], output: Path) -> dict:
    """All numbers: cohort, classifiers by patient, what lies behind them, and the evaluation's report."""
    report = read_json(output / "align" / "report.json")
    manifest = read_json(output / "models" / "manifest.json")
    load, attribute = get("load_cohort"), get("attribute")
    groups = attribute.indices(load("source").rows)
    patients = {role: _counted(load(role), attribute.name) for role in ("guide", "judge", "everyone")}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m scripts.real_data --dataset_dir <folder that holds data.csv>",
        "patients": patients,
        "source": {attribute.groups[1]: round(float((groups == 1).sum() / (groups >= 0).sum()), 4)},
        **discrimination(get, output),
        "needed": needed(report, sum(patients["everyone"].values())),
        "report": report,
        "figures": {file: entry["figures"] for file, entry in manifest.items()},
        "seconds": {file: entry.get("seconds") for file, entry in manifest.items()} | report["seconds"],
    }


def _counted(slices: Slices, column: str) -> dict[str, int]:
    return dict(Counter({row["subject"]: str(row[column]) for row in slices.rows}.values()))


def discrimination(get: Callable[[str], Any], output: Path) -> dict[str, dict]:
    """AUC by patient of the classifiers, mean of the slices' scores, on patients whom they have not seen; and of what
    they may have gone by: site, and plain facts of the scan."""
    everyone, measuring, attribute = get("load_cohort")("everyone"), get("load_cohort")("judge"), get("attribute")
    folds = deal_subjects(everyone.rows, NUM_FOLDS, [attribute.name])
    paths = [output / "models" / f"everyone_{fold}.pt" for fold in range(NUM_FOLDS)]
    network = load_judge(get("guide_def"), paths, folds)
    found = {
        "cross-validated": auc(*_scored(network, everyone, attribute)),
        "guide": auc(*_scored(get("guide"), measuring, attribute)),
        "judge": auc(*_scored(get("judge"), measuring, attribute)),
    }
    behind = shortcuts(*_scored(network, everyone, attribute), everyone, network.fold)
    return {"classifiers": _entries(found), "shortcuts": _entries(behind)}


def _scored(classifier, slices: Slices, attribute) -> tuple[np.ndarray, np.ndarray]:
    """Score and group index of each patient, (P,) both."""
    subjects = slices.subjects()
    scores = by_subject(classifier.predict(slices.pixels(), subjects)[:, 1], subjects)
    return scores, by_subject(attribute.indices(slices.rows), subjects).astype(int)


def shortcuts(scores: np.ndarray, truth: np.ndarray, slices: Slices, fold: Mapping[str, int]) -> dict[str, Estimate]:
    """How well site and scan tell the groups apart, and what a network's ``scores`` (P,) know beyond them.

    ``fold`` is the patient's fold in the network's cross-validation, which serves here too.
    """
    patients = {row["subject"]: str(row["site"]) for row in slices.rows}
    site, folds = np.array(list(patients.values())), np.array([fold[subject] for subject in patients])
    largest = Counter(site.tolist()).most_common(1)[0][0]
    here, one_hot = site == largest, site[:, None] == np.unique(site)
    scan = by_subject(field_of_view(slices.pixels()), slices.subjects())
    return {
        "site alone": auc(cross_validated(one_hot, truth, folds), truth, folds),
        "field of view and brightness alone": auc(cross_validated(scan, truth, folds), truth, folds),
        f"network, patients of the largest site ({largest})": auc(scores[here], truth[here]),
        "network, only patients of the same site compared": auc(scores, truth, site),
        "network, less what field of view and brightness explain": auc(unexplained(scores, scan), truth),
    }


def _entries(estimates: Mapping[str, Estimate]) -> dict[str, dict]:
    return {k: {"value": round(v.value, 4), "ci95": [round(v.low, 4), round(v.high, 4)]} for k, v in estimates.items()}


def needed(report: Mapping[str, Any], everybody: int, gap: float = CLAIM) -> dict:
    """Patients to measure such a judge on so that ``gap`` is found with 80 % power, by the number of images; and what
    could be found if ``everybody``, so many patients, measured it."""
    after, judge = report["after"], report["judge"]
    youden, error = judge["sensitivity"] + judge["specificity"] - 1, after["standard_error"]
    if youden <= 0 or error is None:
        return {"gap": gap, "youden": youden, "images_at_least": None, "patients": {}}
    share = after["raw_proportion"][report["groups"][1]]
    measured = (error, share, youden, judge["subjects"], after["n"])
    patients = {str(images): subjects_needed(*measured, gap, images) for images in (after["n"], 2048, 8192)}
    return {
        "gap": gap,
        "youden": round(youden, 4),
        "images_at_least": int(np.ceil(images_needed(share, youden, gap))),
        "patients": {images: number and int(np.ceil(number)) for images, number in patients.items()},
        "gap_with_all": detectable_with(*measured, everybody),
    }


if __name__ == "__main__":
    start(main)
