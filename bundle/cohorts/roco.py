"""ROCO: figures of open articles with their captions (Pelka et al., LABELS 2018; ROCOv2: Rückert et al., 2024).

Three layouts, told apart by what is there:

- the official repository of 2018: ``data/{train,validation,test}/{radiology,non-radiology}/`` with ``captions.txt``,
  ``licences.txt`` and others, and ``images/`` beside them, where its script writes ``ROCO_00001.jpg`` (an older version
  of the script: ``PMC4083729_AMHSR-4-14-g002.jpg``, which is ``PMC_ID`` in ``licences.txt``);
- the mirror on Kaggle: the same folders below ``all_data/``, and a table with the columns ``id``, ``name`` and
  ``caption`` in each (``traindata.csv``) or beside it (``radiologytraindata.csv``). This is recalled, and seen in
  programs that read it, not checked on the mirror: any csv there with these columns will do;
- ROCOv2: ``train_captions.csv`` (``ID,Caption``), ``train_images/``, the same for ``valid`` and ``test``, and
  ``license_information.csv`` (``ID,PMCID,Attribution``, where the licence's code comes first in the attribution).

Modality and body part are told by the words of the caption alone: ``keywords.txt`` was made from the captions, without
the order of the words. The sex is what the caption says, by the words in ``bundle/cohorts/words.py``.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bundle.cohorts.folders import file_names
from bundle.cohorts.reading import LeftOut, Reading, leave_unknown, with_several
from bundle.cohorts.record import Record
from bundle.cohorts.tables import Row, known, read_table, read_text
from bundle.cohorts.words import BODY_PART, MODALITY, mentions, neutral, sexes
from bundle.errors import InputError

SPLITS = {"train": "train", "validation": "val", "test": "test"}
SPLITS_2 = {"train": "train", "valid": "val", "test": "test"}  # of ROCOv2
KINDS = ("radiology", "non-radiology")
# Codes of licences.txt as it spells them; those that allow changes and commercial use; figures under no such licence.
LICENCES = ("CC0", "CC BY", "CC BY-SA", "CC BY-NC", "CC BY-NC-SA", "CC BY-ND", "CC BY-NC-ND", "NO-CC CODE")
OPEN = ("CC0", "CC BY", "CC BY-SA")
MIRROR = ("id", "name", "caption")  # columns of the mirror's tables
NO_CAPTIONS = "captions.txt is missing"

_CODE = re.compile(r"CC ?(?:0|BY(?:-NC)?(?:-SA|-ND)?)\b")
_ARTICLE = re.compile(r"(PMC\d+)_.")


def read(
    root: str | Path,
    modality: str | None = "mr",
    body_part: str | None = "brain",
    licences: Sequence[str] | None = OPEN,
    kinds: Sequence[str] = ("radiology",),
) -> Reading:
    """Read the cohort: one record per figure, in the order of the files.

    Args:
        root: the folder of one of the layouts above.
        modality: "mr", "ct", "x-ray" or "ultrasound", or None for all.
        body_part: "brain", "chest" or "abdomen", or None for all.
        licences: codes (of ``LICENCES``) to keep, or None for all, known or not.
        kinds: "radiology", "non-radiology" or both; ROCOv2 has the first alone.

    Returns:
        records with ``subject`` (the article, where it is known, else the figure), ``image``, ``figure`` (its id),
        ``stated`` (the caption), ``caption`` (with neutral words for those that name a sex), ``sex`` (where the caption
        names exactly one), ``split``, ``kind`` and ``licence``.

    Raises:
        InputError: for a folder without any of the layouts, an unknown option, a missing column or licence file, a
            repeated id, a file name that leads elsewhere, or when no figure is left.
    """
    wanted = (_one("modality", modality, MODALITY), _one("body_part", body_part, BODY_PART))
    codes = _several("licences", licences, LICENCES)
    found = read_captions(root, _several("kinds", kinds, KINDS) or KINDS)
    if codes is not None:
        _require_licences(found.records)
    records, left_out = _select(found.records, wanted, codes)
    left_out = [*found.left_out, *left_out]
    if not records:
        counts = ", ".join(f"{number} {reason}" for reason, number in Reading([], left_out).reasons())
        raise InputError(
            f"{root}: no figure is left ({counts}); fetch the images, or ask for other figures or licences"
        )
    return Reading(records, left_out, [*found.remarks, *_settle_sex(records), *_remarks(records)])


def read_captions(root: str | Path, kinds: Sequence[str] = KINDS) -> Reading:
    """All captions, whether there are images or not.

    Returns:
        one row per figure: ``figure``, ``subject``, ``split``, ``kind``, ``licence`` (None if unknown), ``stated``,
        ``origin`` (article and file name, None if unknown), ``folder`` and ``names`` (where its image may be), and
        ``terms`` (the file that should tell its licence).

    Raises:
        InputError: as :func:`read`, but for what concerns licences and images.
    """
    root = Path(root)
    if any(_is_file(root / f"{name}_captions.csv") for name in SPLITS_2):
        return _read_version_2(root, kinds)
    for place in (root, root / "data", root / "all_data"):
        if any((place / split / kind).is_dir() for split in SPLITS for kind in KINDS):
            return _read_version_1(place, kinds)
    raise InputError(
        f"{root}: no ROCO here; looked for data/train/radiology/captions.txt (official), a csv with id, name, caption "
        "in all_data/train/radiology (Kaggle) and train_captions.csv (ROCOv2); give the folder that holds one of these"
    )


# --- the first release and its mirror ----------------------------------------------------------------------------


def _read_version_1(root: Path, kinds: Sequence[str]) -> Reading:
    rows, left_out, remarks, absent = [], [], [], []
    for split, kind in itertools.product(SPLITS, KINDS):
        place, folder = f"{split}/{kind}", root / split / kind
        if kind not in kinds:
            left_out += [LeftOut("kind not asked for", place)] if folder.is_dir() else []
        elif not folder.is_dir():
            absent.append(place)
        elif (found := _read_folder(folder, split, kind)) is None:
            left_out.append(LeftOut(NO_CAPTIONS, place))
            remarks.append(f"{place}: {NO_CAPTIONS}{_figures_lost(folder)}; nothing of it is used")
        else:
            rows += found
    if not rows:
        missing = [item.file for item in left_out if item.reason == NO_CAPTIONS] or absent
        raise InputError(f"{root}: {NO_CAPTIONS} in {', '.join(missing)}; copy it there, or ask for other --kinds")
    _require_distinct(rows)
    return Reading(rows, left_out, [*remarks, *_not_here(absent)])


def _read_folder(folder: Path, split: str, kind: str) -> list[Record] | None:
    """Rows of one folder, official or mirrored; None where there are no captions."""
    official, terms, table = folder / "captions.txt", folder / "licences.txt", _mirror_table(folder, kind)
    mirrored = _by_id(read_table(table, MIRROR), table, "id") if table else {}
    if _is_file(official):
        captions = _read_lines(official)
    elif table:
        captions = {figure: row["caption"] for figure, row in mirrored.items()}
    else:
        return None
    licences = _by_id(read_table(terms, ("ROCO_ID", "PMC_ID", "CC")), terms, "ROCO_ID") if _is_file(terms) else {}
    shared = {"split": SPLITS[split], "kind": kind, "folder": folder / "images", "terms": terms}
    rows = []
    for figure, caption in captions.items():
        licence, name = licences.get(figure, {}), mirrored.get(figure, {}).get("name", "")
        names = [f"{figure}.jpg", *filter(None, (licence.get("PMC_ID"), name))]
        rows.append(shared | _figure(figure, caption, names, folder) | {"licence": known(licence.get("CC"))})
    return rows


def _figure(figure: str, caption: str, names: list[str], folder: Path) -> Record:
    for name in names:
        _require_bare(name, folder, figure)
    origin = next((name for name in names if _ARTICLE.match(name)), None)
    subject = _ARTICLE.match(origin)[1] if origin else figure
    stated = " ".join(caption.split())
    return {"figure": figure, "subject": subject, "stated": stated, "origin": origin, "names": names}


def _mirror_table(folder: Path, kind: str) -> Path | None:
    """The mirror's table of a folder, in it or beside it."""
    inside = [folder / name for name in file_names(folder)]
    beside = [folder.parent / name for name in file_names(folder.parent)]
    mine = [path for path in beside if path.name.startswith((kind, kind.replace("-", "")))]
    tables = (path for path in inside + mine if path.suffix.lower() == ".csv")
    return next((path for path in tables if set(MIRROR) <= set(_header(path))), None)


def _header(path: Path) -> list[str]:
    return [name.strip().strip('"') for name in read_text(path).partition("\n")[0].split(",")]


def _figures_lost(folder: Path) -> str:
    terms = folder / "licences.txt"
    return f" ({len(read_table(terms, ('ROCO_ID',)))} figures in its licences.txt)" if _is_file(terms) else ""


# --- the second release ------------------------------------------------------------------------------------------


def _read_version_2(root: Path, kinds: Sequence[str]) -> Reading:
    if "radiology" not in kinds:
        raise InputError(f"--kinds {', '.join(kinds)}: {root} is ROCOv2, which has radiology alone; ask for that")
    terms, rows, absent = root / "license_information.csv", [], []
    licences = _by_id(read_table(terms, ("ID", "PMCID", "Attribution")), terms, "ID") if _is_file(terms) else {}
    for split, name in SPLITS_2.items():
        table = root / f"{split}_captions.csv"
        if not _is_file(table):
            absent.append(table.name)
            continue
        shared = {"split": name, "kind": "radiology", "folder": _image_folder(root, split), "terms": terms}
        for figure, row in _by_id(read_table(table, ("ID", "Caption")), table, "ID").items():
            found = shared | _figure(figure, row["Caption"], [f"{figure}.jpg"], table)
            licence = licences.get(figure, {})
            article = known(licence.get("PMCID")) or figure
            rows.append(found | {"subject": article, "licence": _leading_code(licence.get("Attribution"))})
    _require_distinct(rows)
    return Reading(rows, [], _not_here(absent))


def _image_folder(root: Path, split: str) -> Path:
    """Where the images of a split are; its zip file holds a folder, which some unpack into another."""
    places = (root / f"{split}_images" / split, root / f"{split}_images", root / split)
    return next((place for place in places if place.is_dir()), places[1])


def _leading_code(attribution: str | None) -> str | None:
    """The licence's code, such as "CC BY-NC" of "CC BY-NC Al Mulhim et al. (2022)"; else the whole text."""
    found = known(attribution)
    code = _CODE.match(found) if found else None
    return code[0] if code else found


def _not_here(absent: Sequence[str]) -> list[str]:
    return [f"not in this copy: {', '.join(absent)}"] if absent else []


# --- files -------------------------------------------------------------------------------------------------------


def _read_lines(path: Path) -> dict[str, str]:
    """Captions by id: a line each, split at the first tab, whatever odd characters follow."""
    captions: dict[str, str] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        figure, _, caption = line.partition("\t")
        figure = figure.strip()
        if figure in captions:
            raise InputError(f"{path}: line {number}: id '{figure}' is there already; keep one line")
        if figure:
            captions[figure] = caption
    if not captions:
        raise InputError(f"{path}: the file is empty; copy it again")
    return captions


def _by_id(rows: Iterable[Row], path: Path, column: str) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in rows:
        if row[column] in found:
            raise InputError(f"{path}: column '{column}': '{row[column]}' is there twice; keep one row")
        found[row[column]] = row
    return found


def _require_distinct(rows: Sequence[Record]) -> None:
    seen: dict[str, Path] = {}
    for row in rows:
        if seen.setdefault(row["figure"], row["folder"]) != row["folder"]:
            raise InputError(f"{row['folder'].parent}: figure '{row['figure']}' is also in another split; keep one")


def _require_bare(name: str, where: Path, figure: str) -> None:
    if "/" in name or "\\" in name:
        raise InputError(f"{where}: figure '{figure}': '{name}' is no bare file name; correct the table")


def _is_file(path: Path) -> bool:
    return path.name in file_names(path.parent)


# --- which figures -----------------------------------------------------------------------------------------------


def _require_licences(rows: Sequence[Record]) -> None:
    told: dict[Path, bool] = defaultdict(bool)
    for row in rows:
        told[row["terms"]] |= row["licence"] is not None
    silent = next((path for path, found in told.items() if not found), None)
    if silent is not None:
        raise InputError(
            f"{silent}: tells no licence of any figure; copy the file there, or pass --licences null to take figures "
            "under unknown terms"
        )


def _select(
    rows: Sequence[Record], wanted: tuple[str | None, str | None], codes: Sequence[str] | None
) -> tuple[list[Record], list[LeftOut]]:
    """Records of the figures that are wanted and have an image, and all the others."""
    images = {folder: set(file_names(folder)) for folder in {row["folder"] for row in rows}}
    records, left_out, first = [], [], {}
    for row in rows:
        name = next((name for name in row["names"] if name in images[row["folder"]]), None)
        reason, detail = _unwanted(row["stated"], *wanted), ""
        if not reason and codes is not None and row["licence"] not in codes:
            reason, detail = "licence not asked for", row["licence"] or "unknown"
        elif not reason and name is None:
            reason, detail = "no image", str(row["folder"] / row["names"][0])
        elif not reason and first.setdefault(row["origin"] or row["figure"], row["figure"]) != row["figure"]:
            reason, detail = "second id of a figure", first[row["origin"]]
        if reason:
            left_out.append(LeftOut(reason, row["figure"], row["subject"], detail))
        else:
            records.append(_record(row, row["folder"] / name))
    return records, left_out + _strays(rows, images)


def _unwanted(caption: str, modality: str | None, body_part: str | None) -> str:
    """Why a caption is not asked for, empty if it is."""
    if not caption:
        return "empty caption"
    if modality and not mentions(caption, {modality: MODALITY[modality]}):
        return f"caption without a word for {modality}"
    if body_part and not mentions(caption, {body_part: BODY_PART[body_part]}):
        return f"caption without a word for {body_part}"
    return ""


def _record(row: Record, image: Path) -> Record:
    named = sexes(row["stated"])
    shared = {key: row[key] for key in ("figure", "stated", "split", "kind", "licence")}
    sex = named[0] if len(named) == 1 else None
    return {"subject": row["subject"], "image": image, "caption": neutral(row["stated"]), "sex": sex} | shared


def _strays(rows: Sequence[Record], images: Mapping[Path, set[str]]) -> list[LeftOut]:
    named = defaultdict(set)
    for row in rows:
        named[row["folder"]].update(row["names"])
    lone = ((folder, name) for folder in sorted(images) for name in sorted(images[folder] - named[folder]))
    return [LeftOut("an image without a caption", str(folder / name)) for folder, name in lone]


def _settle_sex(records: Sequence[Record]) -> list[str]:
    mixed = leave_unknown(records, "sex")
    return [f"articles with figures of both sexes, left unknown: {len(mixed)}"] if mixed else []


def _remarks(records: Sequence[Record]) -> list[str]:
    """What a user must know of these figures, in numbers."""
    named = Counter(tuple(sexes(record["stated"])) for record in records)
    male, female, both = (named[key] for key in (("male",), ("female",), ("female", "male")))
    any_sex = male + female + both
    spread = len(with_several(records, "split"))
    articles = len({record["subject"] for record in records})
    alone = sum(record["subject"] == record["figure"] for record in records)
    licences = Counter(record["licence"] or "unknown" for record in records).most_common()
    lines = [
        f"{any_sex} of {len(records)} captions ({any_sex / len(records):.1%}) name a sex: {male} male, "
        f"{female} female, {both} both; the sex of all others is unknown",
        f"{len(records)} figures of {articles} articles; articles in several splits of the data set: {spread}",
        f"licences: {', '.join(f'{code} {number}' for code, number in licences)}",
    ]
    return lines + ([f"figures without an article id: {alone}; those of one article may part"] if alone else [])


# --- options -----------------------------------------------------------------------------------------------------


def _one(option: str, value: str | None, allowed: Iterable[str]) -> str | None:
    chosen = None if value is None else known(str(value))
    if chosen is not None and chosen not in allowed:
        raise InputError(f"--{option} {value}: not known; use one of {', '.join(allowed)}, or null for all")
    return chosen


def _several(option: str, value: str | Sequence[str] | None, allowed: Sequence[str]) -> tuple[str, ...] | None:
    """The chosen values, None for all; text may be several with commas between."""
    if value is None or (isinstance(value, str) and known(value) is None):
        return None
    chosen = tuple(str(part).strip() for part in (value.split(",") if isinstance(value, str) else value))
    wrong = [part for part in chosen if part not in allowed]
    if wrong or not chosen:
        raise InputError(
            f"--{option} {wrong[0] if wrong else value}: not known; use some of {', '.join(allowed)}, or null for all"
        )
    return chosen
