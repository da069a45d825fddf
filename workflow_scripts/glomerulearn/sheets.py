"""Read and check the sheets of slides, crops and labels: every error names the file, the row, the column and the fix.

Imported while the workflow is parsed, so nothing heavy here.
"""

import csv
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

from glomerulearn.errors import InputError

SPLITS = ("train", "val", "test", "predict")
_SCORED = ("train", "val", "test")
_EDGE_BYTES = 1 << 16


def read_slides(path: str | Path, schema: str | Path, base: str | Path | None = None) -> dict[str, dict]:
    """The slide sheet as slide name -> row. Relative paths are resolved against `base` (default: the sheet's folder); addresses
    of objects on S3 (`s3://bucket/key`) stay as they are, and nobody looks yet whether they are there.

    Row keys: slide, path, annotation ("" = none), split, mpp (float or None), patient, site, stain, group.
    Raises: InputError on any wrong cell, a name used twice, or a slide, file or patient in two of train, val, test.
    """
    path = Path(path)
    base = path.parent if base is None else Path(base)
    rows = {}
    for number, row in _checked_rows(path, schema):
        name = row["slide"]
        if name in rows:
            raise InputError(f"{path}, row {number}, column slide: {name!r} stands in two rows; names must be unique")
        if row["split"] in _SCORED and not row["annotation"]:
            raise InputError(
                f"{path}, row {number}, column annotation: slide {name!r} has split {row['split']!r} but no outlines; "
                "name its outline file, or set split to predict"
            )
        for column in ("path", "annotation"):
            if row[column] and not is_remote(row[column]):
                row[column] = str(base / row[column])
        rows[name] = row
        outlines = row["annotation"] and not is_remote(row["annotation"])
        if base == path.parent and outlines and not Path(row["annotation"]).is_file():
            # outlines that are silently none would train on glomeruli called background
            raise InputError(
                f"{path}, row {number}, column annotation: no such file {row['annotation']}; correct the path"
            )
    check_leaks(rows, path)
    return rows


def is_remote(path: str) -> bool:
    """Whether a cell names an object on S3 rather than a file."""
    return path.startswith("s3://")


def check_leaks(rows: Mapping[str, Mapping], path: Path) -> None:
    """Raise InputError when one file or one patient stands in two of train, val and test."""
    for column in ("path", "patient"):
        splits = defaultdict(dict)
        for name, row in rows.items():
            if row["split"] in _SCORED and row[column]:
                splits[row[column]].setdefault(row["split"], name)
        for value, found in splits.items():
            if len(found) > 1:
                raise InputError(
                    f"{path}, column {column}: {value!r} stands in the splits {', '.join(found)} (slides "
                    f"{', '.join(found.values())}); scores would be about what the network has seen. Give them one split"
                )


def check_splits(rows: Mapping[str, Mapping], path: str | Path, needed: Sequence[str]) -> None:
    """Raise InputError when a split that is `needed`, to train on or to choose by, has no slide."""
    for split in needed:
        if not any(row["split"] == split for row in rows.values()):
            raise InputError(
                f"{path}, column split: no slide is {split!r}; the segmenters need outlined slides to be trained on (train), "
                "others to choose the best by (val), and some to be judged on (test)"
            )


def read_crops(path: str | Path, schema: str | Path) -> dict[str, list[dict]]:
    """The crop sheet as slide name -> rows (glomerulus, image, mask, slide, site, label); paths made absolute.

    Raises: InputError on any wrong cell, a glomerulus named twice, or an image or mask that is not there.
    """
    path = Path(path)
    slides, seen = defaultdict(list), set()
    for number, row in _checked_rows(path, schema):
        if row["glomerulus"] in seen:
            raise InputError(
                f"{path}, row {number}, column glomerulus: {row['glomerulus']!r} stands in two rows; names must be unique"
            )
        seen.add(row["glomerulus"])
        for column in ("image", "mask"):
            if row[column]:
                row[column] = str(path.parent / row[column])
                if not Path(row[column]).is_file():
                    raise InputError(f"{path}, row {number}, column {column}: no such file {row[column]}")
        if slides[row["slide"]] and slides[row["slide"]][0]["site"] != row["site"]:
            raise InputError(
                f"{path}, row {number}, column site: slide {row['slide']!r} has two sites, "
                f"{slides[row['slide']][0]['site']!r} and {row['site']!r}; stain is normalised per slide, so fill in the "
                "column slide, with another name for each laboratory at least"
            )
        slides[row["slide"]].append(row)
    return dict(slides)


def read_label_sheet(path: str | Path, schema: str | Path, slides: Collection[str]) -> dict[str, list[dict]]:
    """The label sheet as slide name -> rows (slide, label, glomerulus, x_px, y_px, x_um, y_um; "" or None = empty).

    slides: the names of the slide sheet. Raises: InputError on any wrong cell, a slide that is not there, or a row that names
    neither a glomerulus nor a place.
    """
    path = Path(path)
    found = defaultdict(list)
    for number, row in _checked_rows(path, schema):
        if row["slide"] not in slides:
            raise InputError(
                f"{path}, row {number}, column slide: {row['slide']!r} is not in the slide sheet; use the names that stand there"
            )
        places = [
            row["x_px"] is not None and row["y_px"] is not None,
            row["x_um"] is not None and row["y_um"] is not None,
        ]
        if not row["glomerulus"] and not any(places):
            raise InputError(
                f"{path}, row {number}: which glomerulus is it? Fill in `glomerulus` (its name in results/glomeruli.csv), or a "
                "point in it: `x_px` and `y_px` (at full resolution), or `x_um` and `y_um`"
            )
        found[row["slide"]].append(row)
    return dict(found)


def check_names(slides: Mapping, crops: Mapping) -> None:
    """Raise InputError when the crop sheet names a slide that the slide sheet has too: their files would collide."""
    for name in crops:
        if name in slides:
            raise InputError(
                f"slide {name!r} stands in the slide sheet and in the crop sheet; rename it in one of them"
            )


def fingerprint(path: str | Path, whole: bool = True) -> str:
    """What tells a file from another: its name, size and content; `missing` or `unreadable`.

    whole: read all of it; else its first and last 64 kB only, since slides are gigabytes. Neither its folder nor its date
    count: a copy, a mount elsewhere or a touched file is still the same file.
    """
    path = Path(path)
    if not path.is_file():
        return "missing" if path.name else ""
    try:
        with path.open("rb") as file:
            if whole:
                content = file.read()
            else:
                content = file.read(_EDGE_BYTES)
                file.seek(max(0, path.stat().st_size - _EDGE_BYTES))
                content += file.read(_EDGE_BYTES)
    except OSError:
        return "unreadable"  # the job that needs it says why, and the others go on
    digest = hashlib.sha256(content).hexdigest()
    return f"{path.name} {path.stat().st_size} {digest[:16]}"


def _checked_rows(path: Path, schema: str | Path):
    schema = yaml.safe_load(Path(schema).read_text())
    columns = schema["properties"]
    numbers = [name for name, column in columns.items() if "number" in column.get("type", "")]
    validator = Draft202012Validator(schema)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.absolute()}: the sheet cannot be read ({error}); check the path in config") from error
    first = text.split("\n", 1)[0]
    reader = csv.DictReader(text.splitlines(), delimiter="\t" if "\t" in first else ",")
    unknown = [name for name in reader.fieldnames or () if name not in columns]
    missing = [name for name in schema["required"] if name not in (reader.fieldnames or ())]
    if unknown or missing:
        problem = f"unknown column {unknown[0]!r}" if unknown else f"column {missing[0]!r} is missing"
        raise InputError(
            f"{path}, row 1: {problem}; required are {', '.join(schema['required'])}, known are {', '.join(columns)}"
        )
    empty = True
    for raw in reader:
        number = reader.line_num
        if None in raw or None in raw.values():
            raise InputError(f"{path}, row {number}: not as many cells as row 1 has columns; check tabs and commas")
        row = {name: columns[name].get("default", "") for name in columns}
        row |= {name: value.strip() for name, value in raw.items() if value.strip()}
        if not any(value.strip() for value in raw.values()):
            continue
        for name in numbers:
            if row[name] is not None:
                row[name] = _number(row[name])
        for error in validator.iter_errors({name: value for name, value in row.items() if value is not None}):
            column = error.absolute_path[0] if error.absolute_path else re.findall(r"'(\w+)'", error.message)[0]
            hint = columns.get(column, {}).get("description", "")
            raise InputError(f"{path}, row {number}, column {column}: found {row.get(column)!r}; {hint}")
        for column in schema["required"]:
            if not row[column]:
                raise InputError(
                    f"{path}, row {number}, column {column}: empty; {columns[column].get('description', 'fill it in')}"
                )
        empty = False
        yield number, row
    if empty:
        raise InputError(f"{path}: the sheet has no rows below its header; add a row per slide")


def _number(text):
    try:
        return float(text) if math.isfinite(float(text)) else text
    except (TypeError, ValueError):
        return text  # the schema then says what is wrong with it
