"""Small copies of the published layouts of the data sets, with pictures of nothing, to run whole jobs on."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

PEOPLE = 60  # so that every role has some of every group
SEXES = ("female", "male")


def picture(path: Path, index: int, channels: int = 1) -> None:
    """A blob on a dark ground, different for every index."""
    rows, columns = np.mgrid[:72, :80]
    blob = np.exp(-((rows - 36) ** 2 + (columns - 30 - index % 20) ** 2) / (60 + 5 * (index % 9)))
    grey = (220 * blob + 10).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey if channels == 1 else np.stack([grey, grey // 2, grey // 3], -1)).save(path)


def rows(path: Path, table: Sequence[Sequence]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(table)
    return path


def brats18(root: Path) -> dict:
    """Cases in HGG and LGG with four modalities and a segmentation, a mapping, and a clinical table."""
    mapping = [
        ["Grade", "BraTS_2017_subject_ID", "BraTS_2018_subject_ID", "TCGA_TCIA_subject_ID", "BraTS_2019_subject_ID"]
    ]
    clinical = [["Patient ID", "Sex", "Diagnosis Age"]]
    for i in range(PEOPLE):
        grade, name, barcode = ("HGG", "LGG")[i % 3 == 0], f"Brats18_TCIA01_{i:03d}_1", f"TCGA-02-{i:04d}"
        mapping.append([grade, f"Brats17_TCIA_{i}", name, barcode, f"BraTS19_TCIA01_{i:03d}_1"])
        clinical.append([barcode, SEXES[i % 2].upper(), 40 + i % 30])
        _case(root / grade / name, name, i)
    beside = root.parent / "tables"
    return {
        "name_mapping": str(rows(beside / "mapping.csv", mapping)),
        "clinical": [str(rows(beside / "tcga.csv", clinical))],
    }


def _case(folder: Path, name: str, index: int) -> None:
    folder.mkdir(parents=True)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 40, 12)), indexing="ij")
    head = sum(axis**2 for axis in axes) < 0.9
    lesion = sum((axis - 0.2) ** 2 for axis in axes) < 0.05 + 0.002 * (index % 9)
    affine = np.diag([-6.0, -6.0, 13.0, 1.0])
    for modality in ("t1", "t1ce", "t2", "flair"):
        values = (head * (300 + index + 100 * axes[0]) + 200 * lesion).astype(np.int16)
        nib.save(nib.Nifti1Image(values, affine), folder / f"{name}_{modality}.nii.gz")
    nib.save(nib.Nifti1Image((4 * (lesion & head)).astype(np.uint8), affine), folder / f"{name}_seg.nii.gz")


def roco(root: Path) -> dict:
    """Brain MR figures of the official repository's layout, most captions with a sex."""
    folder = root / "data" / "train" / "radiology"
    captions, licences = [], ["ROCO_ID,PMC_ID,CC"]
    for i in range(PEOPLE):
        figure = f"ROCO_{i:05d}"
        person = ("woman", "man")[i % 2]
        captions.append(f"{figure}\t Axial T2-weighted MRI of the brain of a {person} with a frontal lesion.\n")
        licences.append(f"{figure},PMC{1000 + i}_fig{i}.jpg,CC BY")
        picture(folder / "images" / f"{figure}.jpg", i)
    (folder / "captions.txt").write_text("".join(captions))
    (folder / "keywords.txt").write_text("".join(f"ROCO_{i:05d}\t\tbrain\n" for i in range(PEOPLE)))
    (folder / "licences.txt").write_text("\n".join(licences) + "\n")
    return {}


def ham10000(root: Path) -> dict:
    table = [["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]]
    for i in range(PEOPLE):
        diagnosis = ("nv", "mel")[i % 3 == 0]
        table.append([f"HAM_{i:07d}", f"ISIC_{i:07d}", diagnosis, "histo", 30 + i, SEXES[i % 2], "back"])
        picture(root / f"HAM10000_images_part_{1 + i % 2}" / f"ISIC_{i:07d}.jpg", i, 3)
    rows(root / "HAM10000_metadata.csv", table)
    return {}


def chexpert(root: Path) -> dict:
    labels = (
        "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
        "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
    ).split(",")
    table = [["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *labels]]
    for i in range(PEOPLE):
        place = f"CheXpert-v1.0-small/train/patient{i + 1:05d}/study1/view1_frontal.jpg"
        effusion = [("", "1.0", "0.0")[i % 3] if label == "Pleural Effusion" else "" for label in labels]
        table.append([place, SEXES[i % 2].title(), 40, "Frontal", "AP", *effusion])
        picture(root / place, i)
    rows(root / "CheXpert-v1.0-small" / "train.csv", table)
    people = [["PATIENT", "GENDER", "AGE_AT_CXR", "PRIMARY_RACE", "ETHNICITY"]]
    for i in range(PEOPLE):
        race = ("White", "Asian", "Black or African American")[i // 2 % 3]
        people.append([f"patient{i + 1:05d}", SEXES[i % 2].title(), 40, race, "Non-Hispanic/Non-Latino"])
    return {"demographics": str(rows(root.parent / "demographics.csv", people))}


def fairgenmed(root: Path) -> dict:
    summary = [["filename", "md_severity", "cdr_status", "se_status", "rnflt_status"]]
    for i in range(PEOPLE):
        folder, name = root / ("train", "val", "test")[i % 3], f"data_{i + 1:05d}.npz"
        picture(folder / f"slo_fundus_{i + 1:05d}.jpg", i)
        facts = {"race": i % 3, "male": i % 2, "hispanic": i % 5 == 0, "glaucoma": i % 2, "md": -3.0, "language": 0}
        np.savez(folder / name, **{key: np.array(value, dtype=float) for key, value in facts.items()}, maritalstatus=1)
        summary.append([name, ("normal", "mild")[i % 2], "normal", "myopia", "medium"])
    rows(root / "data_summary.csv", summary)
    return {}


def table(root: Path) -> dict:
    lines = [["subject", "image", "sex", "caption"]]
    for i in range(PEOPLE):
        lines.append([f"p{i}", f"images/{i}.png", SEXES[i % 2], f"photograph number {i % 4}"])
        picture(root / "images" / f"{i}.png", i)
    return {"table": str(rows(root / "people.csv", lines))}


def tcga_lgg(root: Path) -> dict:
    """Patients of two sites with three slices each, and a mask beside every slice."""
    lines = [["Patient", "neoplasm_histologic_grade", "laterality", "gender", "age_at_initial_pathologic"]]
    for i in range(PEOPLE // 3):
        patient = f"TCGA_{('CS', 'DU')[i // 2 % 2]}_{4000 + i}"
        lines.append([patient, 1 + i % 2, 1, 1 + i % 2, 40 + i])
        for number in (3, 6, 9):
            place = root / f"{patient}_19990101" / f"{patient}_19990101_{number}.tif"
            picture(place, i, 3)
            lesion = np.zeros((72, 80), np.uint8)
            lesion[30:40, 20 + number : 30 + number] = 255
            Image.fromarray(lesion).save(place.with_name(f"{place.stem}_mask.tif"))
    rows(root / "data.csv", lines)
    return {}


COHORTS = {made.__name__: made for made in (brats18, roco, ham10000, chexpert, fairgenmed, table, tcga_lgg)}
