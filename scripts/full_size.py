"""The way from BraTS at its full size to an aligned model, once, on a phantom of 285 cases of 240 x 240 x 155 voxels.

    python -m scripts.full_size

Draws the volumes, lays them out as BraTS 2018 with a name mapping and a clinical table of its own, prepares the cohort,
aligns the embedded model with it and evaluates. Minutes, memory and disk go to docs/results/full_size.json, from where
``python -m scripts.benchmark table`` takes them into docs/results.md.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

from bundle.cohorts import phantom
from bundle.files import write_whole
from scripts.jobs import command, measured, read_json, start, write_json
from scripts.results import RESULTS, write_tables

CASES, SHAPE = 285, (240, 240, 155)
COLUMNS = ("Grade", "BraTS_2017_subject_ID", "BraTS_2018_subject_ID", "TCGA_TCIA_subject_ID", "BraTS_2019_subject_ID")


def main(work_dir: str = "outputs/full_size") -> None:
    """Run all of it; what is drawn already is not drawn again."""
    work = Path(work_dir)
    cohort, drawn = (str(work / "phantom"), "target", SHAPE, CASES), work / "volumes.json"
    if not drawn.is_file():
        draw = f"from bundle.cohorts import phantom; phantom.generate(*{cohort!r})"
        write_json(measured(["-c", draw], work / "volumes.txt"), drawn)
    parts = {"volumes": read_json(drawn)}
    datalist = phantom.generate(*cohort)
    root, tables = as_brats(datalist, work / "brats18")
    out = work / "brats18.json"
    prepare = ["-m", "scripts.prepare_cohort", "brats18", "--root", str(root), "--out", str(out), "--stratum", "grade"]
    overlay = ["configs/align.yaml", "configs/cohort_brats18.yaml"]
    given = {"datalist": out, "output_dir": work / "align", "cache_dir": work / "cache", "models_dir": "models"}
    align = command("training", overlay, **given)
    evaluate = command("evaluating", ["configs/evaluate.yaml", overlay[1]], **given)
    for name, words in (("prepare", prepare + tables), ("align", align), ("evaluate", evaluate)):
        parts[name] = measured(words, work / f"{name}.txt")
    disk = {name: megabytes(path) for name, path in (("volumes", work / "phantom"), ("cache", work / "cache"))}
    result = {"cases": CASES, "shape": list(SHAPE), "cores": os.cpu_count(), "parts": parts, "disk_mb": disk}
    write_json(result, RESULTS / "full_size.json")
    write_tables()


def as_brats(datalist: Path, root: Path) -> tuple[Path, list[str]]:
    """Links to a phantom cohort's files, named as BraTS 2018 names them; the root, and options that name the tables."""
    mapping, clinical = [COLUMNS], [("Patient ID", "Sex", "Diagnosis Age")]
    for number, record in enumerate(json.loads(datalist.read_text()), 1):
        name, barcode = f"Brats18_TCIA01_{number:03d}_1", f"TCGA-02-{number:04d}"
        mapping.append((record["grade"], f"Brats17_TCIA_{number}_1", name, barcode, f"BraTS19_TCIA01_{number:03d}_1"))
        clinical.append((barcode, record["sex"], record["age"]))
        folder = root / record["grade"] / name
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("t1", "t1ce", "t2", "flair", "seg"):
            link = folder / f"{name}_{kind}.nii.gz"
            link.unlink(missing_ok=True)
            link.symlink_to((datalist.parent / record[kind]).resolve())
    tables = [_table(root.parent / "name_mapping.csv", mapping), _table(root.parent / "clinical.csv", clinical)]
    return root, ["--name_mapping", str(tables[0]), "--clinical", str([str(tables[1])])]


def megabytes(folder: Path) -> int:
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6)


def _table(path: Path, rows: Sequence[Sequence]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return write_whole(path, text.getvalue().encode())


if __name__ == "__main__":
    start(main)
