"""Your own data: a table with one row per picture or per volume.

Columns, by our names (``columns`` maps yours to them): ``subject``; ``image`` for pictures, or one of ``MODALITIES``
each for volumes; perhaps ``seg`` or ``mask``, ``split``, ``caption`` and ``stated``; all others are attributes. Paths
are relative to ``root``; a folder of slices or a ``.dcm`` file is a DICOM image. A JSON list of rows serves as well.
"""

from __future__ import annotations

import difflib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bundle.cohorts import tables
from bundle.cohorts.folders import entries
from bundle.cohorts.reading import LeftOut, Reading
from bundle.cohorts.record import Record
from bundle.cohorts.words import sexes
from bundle.errors import InputError

MODALITIES = ("t1", "t1ce", "t2", "flair", "pd", "dwi", "adc", "swi", "ct", "pet")
MASKS = ("seg", "mask")
WORDINGS = ("caption", "stated")
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SEPARATORS = {"comma": ",", "tab": "\t", "semicolon": ";"}  # by name, which is easier to type
PERSON = ("sex", "race", "ethnicity", "language", "marital_status")  # words, never numbers
FIXED = ("sex", "race", "ethnicity", "split")  # a person has one value of these
DEFAULT_STATED = ("{caption}", "{race}", "{sex}", "{ethnicity}")
COLUMNS_OF_OTHERS = {"subject": "PatientID"}  # as examples in messages
CODES_OF_SEX = {"sex": {"1": "female", "2": "male"}}

Rows = dict[str, tables.Row]  # by file and row, as messages name them
Codes = dict[str, dict[str, str | None]]  # attribute -> code in lower case -> group

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NUMBER = re.compile(r"-?\d+(\.\d*)?")


def read(
    root: str | Path,
    table: str | Path,
    columns: Mapping[str, str] | None = None,
    codes: Mapping[str, Mapping[str, str | None]] | None = None,
    separator: str | None = None,
    caption: str | Sequence[str] | None = None,
    stated: str | Sequence[str] | None = None,
) -> Reading:
    """Read a table: one record per row whose images are there.

    Args:
        root: the folder that the paths in the table start from.
        table: CSV, TSV or JSON, by its path or by its path in ``root``.
        columns: our name of a column -> the table's.
        codes: attribute -> its codes -> groups, None for a code that means unknown.
        separator: of the table, a character or one of ``SEPARATORS``; None finds it.
        caption: the neutral wording: a phrase with {column} in it, or several, which commas join. A phrase with an
            unknown value is left out, and a row without any phrase too. None takes the table's column.
        stated: the wording that names the person, likewise; None takes the column, or else ``DEFAULT_STATED``.

    Returns:
        records with ``subject``, the images, all other columns (None where a cell is unknown) and ``age_band`` where
        there is an age. The mask of a picture is called ``mask``, that of a volume ``seg``.

    Raises:
        InputError: for what the owner of the table must correct; a row whose file is missing is left out instead.
    """
    root, columns = Path(root), _mapping("columns", columns)
    path = Path(table) if Path(table).is_file() else root / table
    rows = _read_rows(path, columns, separator)
    names = list(next(iter(rows.values())))
    images = _image_columns(path, names)
    attributes = [name for name in names if name not in (*images.values(), *WORDINGS, "subject")]
    groups = _read_codes(path, attributes, _mapping("codes", codes))
    files = [_files(where, row, images) for where, row in rows.items()]
    facts = [_fact(where, row, attributes, groups) for where, row in rows.items()]
    remarks = _empty_columns(path, facts, {*PERSON, "age", *columns, *groups})
    _check_files(rows, files)
    _check_persons(rows, facts)
    phrases, default = _read_templates(path, names, list(facts[0]), {"caption": caption, "stated": stated})
    described = [fact | _wordings(phrases, fact, row) for fact, row in zip(facts, rows.values(), strict=True)]
    records, left_out = _sort_out(root, rows, files, described)
    if not records:
        reason = Reading([], left_out).reasons()[0][0]
        raise InputError(f"{path}: no row can be used, most often: {reason}; correct the table, or root '{root}'")
    return Reading(records, left_out, [*remarks, *default, *_remarks(records)])


def _sort_out(
    root: Path, rows: Rows, files: Sequence[Record], described: Sequence[Record]
) -> tuple[list[Record], list[LeftOut]]:
    """The records of the rows that can be used, and the other rows."""
    present = _present(root, {file for found in files for file in found.values() if file})
    records, left_out = [], []
    for (where, row), found, words in zip(rows.items(), files, described, strict=True):
        problem = _problem(row, found, words, present)
        if problem:
            left_out.append(LeftOut(problem[0], problem[1], row["subject"], where))
        else:
            paths = {name: root / file for name, file in found.items() if file}
            records.append({"subject": row["subject"]} | paths | words)
    return records, left_out


def _problem(row: tables.Row, found: Record, words: Record, present: set[str]) -> tuple[str, str] | None:
    """Why a row cannot be used, and the file that it is about."""
    if tables.known(row["subject"]) is None:
        return "a row without a subject", ""
    for name, file in found.items():
        if file is None and name != "mask":  # a volume without a lesion needs one of zeros
            return f"a row without a path of its {name}", ""
        if file is not None and file not in present:
            return "a row whose file is not there", file
    lacking = [name for name in WORDINGS if name in words and words[name] is None]
    return (f"a row without a {lacking[0]}", "") if lacking else None


def _remarks(records: Sequence[Record]) -> Iterator[str]:
    for name in (*PERSON, "age"):
        unknown = sum(record.get(name) is None for record in records)
        if name in records[0] and unknown:
            yield f"{name} is unknown for {unknown} of {len(records)} rows"
    named = sum(bool(sexes(record.get("caption") or "")) for record in records)
    if named:
        yield f"{named} of {len(records)} captions name a sex, so they are not neutral; take the word out of them"


# --- the table ---------------------------------------------------------------------------------------------------


def _mapping(option: str, given: Mapping | None) -> dict:
    example = COLUMNS_OF_OTHERS if option == "columns" else CODES_OF_SEX
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f'--{option} {given!r}: no mapping; write it as in --{option} "{example}"')
    return dict(given or {})


def _read_rows(path: Path, columns: Mapping[str, str], separator: str | None) -> Rows:
    """All rows, their cells by our names."""
    if path.suffix.lower() == ".json":
        rows = _read_json(path)
    else:
        sign = SEPARATORS.get(separator, separator)
        if sign is not None and len(sign) != 1:
            raise InputError(f"--separator '{separator}': not one character; use one, or {', '.join(SEPARATORS)}")
        rows = {f"{path}: row {number}": row for number, row in enumerate(tables.read_table(path, None, sign), 2)}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    sources = _sources(path, names, columns)
    return {where: {our: row.get(name, "") for our, name in sources.items()} for where, row in rows.items()}


def _read_json(path: Path) -> Rows:
    try:
        read = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); correct the path or write it again") from None
    if not isinstance(read, list) or not read or not all(isinstance(row, dict) for row in read):
        raise InputError(f"{path}: no list of records; write a JSON list with one object per row")
    rows = {f"{path}: record {number}": row for number, row in enumerate(read)}
    for where, row in rows.items():
        nested = [name for name, cell in row.items() if isinstance(cell, dict | list)]
        if nested:
            raise InputError(f"{where}, field '{nested[0]}': not one value; write text, a number or null")
    return {where: {name: _cell(cell) for name, cell in row.items()} for where, row in rows.items()}


def _cell(value: str | float | None) -> str:
    return "" if value is None else str(value).strip()


def _sources(path: Path, names: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Our name of every column -> the table's."""
    there = f"there are {', '.join(names[:12])}"
    columns = {our: str(name) for our, name in columns.items()}
    for our, name in columns.items():
        if name not in names:
            raise InputError(f"{path}: no column '{name}' for '{our}' of --columns; {there}")
        if our in names and our not in columns.values():
            raise InputError(f"{path}: --columns makes '{name}' a second '{our}'; rename or remove one of them")
    sources = {name: name for name in names if name and name not in columns.values()} | columns
    if "role" in sources:
        raise InputError(f"{path}: column 'role': roles are dealt out when the cohort is prepared; rename the column")
    if "subject" not in sources:
        remedy = "give --separator" if len(names) == 1 else f'rename yours or give --columns "{COLUMNS_OF_OTHERS}"'
        raise InputError(f"{path}: no column 'subject', {there}; {remedy}")
    return sources


# --- images ------------------------------------------------------------------------------------------------------


def _image_columns(path: Path, names: Sequence[str]) -> dict[str, str]:
    """The images of a record -> their columns."""
    volumes = [name for name in MODALITIES if name in names]
    masks = [name for name in MASKS if name in names]
    if "image" in names and volumes:
        raise InputError(f"{path}: columns 'image' and '{volumes[0]}'; keep the one for pictures or those for volumes")
    if "image" not in names and not volumes:
        raise InputError(
            f"{path}: no column 'image' (for pictures), nor any of {', '.join(MODALITIES)} (for volumes), "
            f"there are {', '.join(names[:12])}; rename yours or give --columns \"{{'image': '...'}}\""
        )
    if volumes and not masks:
        raise InputError(f"{path}: no column 'seg', and slices of volumes are chosen and described by it; add it")
    if len(masks) > 1:
        raise InputError(f"{path}: columns 'seg' and 'mask'; keep one")
    mask = {"seg" if volumes else "mask": masks[0]} if masks else {}
    return {name: name for name in volumes or ["image"]} | mask


def _files(where: str, row: tables.Row, images: Mapping[str, str]) -> dict[str, str | None]:
    """The paths of a row, None where the cell is empty."""
    return {name: _file(row[column], where, column) for name, column in images.items()}


def _file(cell: str, where: str, column: str) -> str | None:
    if tables.known(cell) is None:
        return None
    file = posixpath.normpath(cell.replace("\\", "/"))
    if file.startswith("/") or re.match("[A-Za-z]:", file):
        raise InputError(f"{where}, column '{column}': '{cell}' is an absolute path; write it relative to root")
    if file == ".." or file.startswith("../"):
        raise InputError(f"{where}, column '{column}': '{cell}' leads out of root; move the file into root")
    return file


def _check_files(rows: Rows, files: Sequence[Mapping[str, str | None]]) -> None:
    """No image stands twice, and a subject has one row of volumes."""
    seen: dict[tuple[str, str], str] = {}
    for (where, row), found in zip(rows.items(), files, strict=True):
        keys = [("image", file) for name, file in found.items() if file and name not in MASKS]
        if "image" not in found and tables.known(row["subject"]):
            keys.append(("subject", row["subject"]))
        for key in keys:
            if key in seen:
                raise InputError(f"{where}: {key[0]} '{key[1]}' is also in {_place(seen[key])}; keep one")
            seen[key] = where


def _place(where: str) -> str:
    return where.rpartition(": ")[2]


def _present(root: Path, files: set[str]) -> set[str]:
    """Those of the files and folders that are there; each folder that holds some is listed once."""
    folders = {posixpath.dirname(file) for file in files}
    return files & {posixpath.join(folder, entry.name) for folder in folders for entry in entries(root / folder)}


# --- attributes --------------------------------------------------------------------------------------------------


def _read_codes(path: Path, attributes: Sequence[str], codes: Mapping[str, Mapping]) -> Codes:
    read: Codes = {}
    for name, groups in codes.items():
        if name not in attributes or name == "age":
            raise InputError(f"--codes: '{name}' is no attribute in {path}; there are {', '.join(attributes)}")
        read[name] = {}
        for code, group in _mapping("codes", groups).items():
            group = tables.known(None if group is None else str(group))
            read[name][str(code).strip().lower()] = group.lower() if group and name in (*PERSON, "split") else group
        allowed = {"sex": {"female", "male"}, "split": {*SPLITS.values()}}.get(name)
        wrong = {*read[name].values()} - {None} - allowed if allowed else None
        if wrong:
            raise InputError(f"--codes: {name} '{min(wrong)}'; use {', '.join(sorted(allowed))}, or None for unknown")
    return read


def _fact(where: str, row: tables.Row, attributes: Sequence[str], codes: Codes) -> Record:
    """The attributes of a row."""
    fact = {name: _value(name, row[name], codes.get(name), where) for name in attributes}
    return fact | ({"age_band": tables.age_band(fact["age"])} if "age" in fact and "age_band" not in fact else {})


def _value(name: str, cell: str, codes: Mapping[str, str | None] | None, where: str) -> str | float | None:
    """What a cell of an attribute means; ``codes`` are the attribute's, where it has some."""
    found = tables.known(cell)
    words = {"sex": tables.SEX, "split": SPLITS}.get(name)
    if name == "age":
        return tables.years(cell, f"{where}, column 'age'")
    if codes is None and name in PERSON and found and _NUMBER.fullmatch(found):
        raise InputError(
            f"{where}, column '{name}': '{cell}' is a code, and the codes of data sets disagree; say what yours mean "
            f'as in --codes "{CODES_OF_SEX if name == "sex" else {name: {"1": "...", "2": "..."}}}"'
        )
    if codes is None and words is None:
        return found.lower() if found and name in PERSON else found
    groups = {**(words or {}), **(codes or {})}
    if found and None in (groups.get(found.lower(), ""), groups.get(found.lower().removesuffix(".0"), "")):
        return None
    return tables.coded(cell, groups, f"{where}, column '{name}'")


def _empty_columns(path: Path, facts: Sequence[Record], wanted: set[str]) -> list[str]:
    """A remark on every column without a known value; one that is ``wanted`` is refused."""
    empty = [name for name in facts[0] if all(fact[name] is None for fact in facts)]
    for name in empty:
        if name in wanted:
            raise InputError(f"{path}: column '{name}': no row has a known value; fill it or remove the column")
    return [f"column '{name}' is empty" for name in empty]


def _check_persons(rows: Rows, facts: Sequence[Record]) -> None:
    """A person has one sex, race and ethnicity, and is in one split; to be in none is to be in another."""
    for name in [name for name in FIXED if name in facts[0]]:
        seen: dict[str, tuple[str | None, str]] = {}
        for (where, row), fact in zip(rows.items(), facts, strict=True):
            value = fact[name]
            if tables.known(row["subject"]) is None or (value is None and name != "split"):
                continue
            first, place = seen.setdefault(row["subject"], (value, where))
            if first != value:
                raise InputError(
                    f"{where}, column '{name}': subject '{row['subject']}' has '{value or ''}' here and "
                    f"'{first or ''}' in {_place(place)}; keep one"
                )


# --- wordings ----------------------------------------------------------------------------------------------------


def _read_templates(
    path: Path, names: Sequence[str], facts: Sequence[str], given: Mapping[str, str | Sequence[str] | None]
) -> tuple[dict[str, list[str]], list[str]]:
    """The phrases of each wording that is made here, and a remark where nobody asked for one."""
    known = [*facts, *(name for name in WORDINGS if name in names)]
    phrases = {}
    for name, template in given.items():
        if template is not None:
            phrases[name] = _read_phrases(name, template, known)
            known.append(name)
    if "caption" not in known and "image" in names:
        raise InputError(
            f"{path}: no column 'caption', and pictures need a text; add the column or give its wording, "
            'as in --caption "chest X-ray, {finding}"'
        )
    if "caption" not in known or "stated" in known:
        return phrases, []
    default = [phrase for phrase in DEFAULT_STATED if phrase[1:-1] in known]
    remark = f"the stated wording is made up of {', '.join(phrase[1:-1] for phrase in default)}; --stated gives another"
    return phrases | {"stated": default}, [remark]


def _read_phrases(option: str, template: str | Sequence[str], known: Sequence[str]) -> list[str]:
    phrases = [template] if isinstance(template, str) else template
    if not isinstance(phrases, list | tuple) or not all(isinstance(phrase, str) for phrase in phrases):
        raise InputError(f"--{option} {template!r}: not text; put it into a second pair of quotes")
    for phrase in phrases:
        if re.search("[{}]", _PLACEHOLDER.sub("", phrase)):
            raise InputError(f"--{option} '{phrase}': a brace without its counterpart; write columns as {{name}}")
        for name in _PLACEHOLDER.findall(phrase):
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
                raise InputError(f"--{option} '{phrase}': no column '{name}'; {hint}")
            if option == "caption" and name in (*PERSON, "age", "age_band", "stated"):
                raise InputError(f"--caption '{phrase}': '{name}' tells about the person; name it in --stated alone")
    return list(phrases)


def _wordings(phrases: Mapping[str, Sequence[str]], fact: Record, row: tables.Row) -> dict[str, str | None]:
    values = fact | {name: tables.known(" ".join(row[name].split())) for name in WORDINGS if name in row}
    for name in WORDINGS:
        if name in phrases:
            values[name] = _say(phrases[name], values)
    return {name: values[name] for name in WORDINGS if name in values}


def _say(phrases: Iterable[str], values: Mapping[str, str | float | None]) -> str | None:
    """The phrases whose values are all known, joined by commas."""
    said = [
        _PLACEHOLDER.sub(lambda match: _shown(values[match[1]]), phrase)
        for phrase in phrases
        if all(values[name] is not None for name in _PLACEHOLDER.findall(phrase))
    ]
    return ", ".join(said) or None


def _shown(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"
