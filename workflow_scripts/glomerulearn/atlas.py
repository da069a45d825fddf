"""The atlas: one page, without a network, that shows glomeruli by grade, from the least to the most scarred of each."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from jinja2 import Environment

from glomerulearn.pictures import pictures

PER_GRADE = 200  # pictures shown of each grade: a page of some 4 MB per grade, which every browser opens
_SIDE_PX = 224
_NUMBERS = ("grade", "sclerosis_axis", "centroid_x_px", "centroid_y_px", "equivalent_diameter_um")


def write_atlas(
    glomeruli: Path, crops: Sequence[Path], grades: Mapping, sites: Mapping[str, str], target: Path
) -> None:
    """Write the page (HTML) of all graded glomeruli; of a grade with more than `PER_GRADE`, of so many.

    glomeruli: the table of the cohort; crops: crop stores of its slides; grades: as `order_grades` writes them;
    sites: slide -> site.
    """
    table = pd.read_csv(glomeruli, dtype=str, keep_default_na=False)
    for name in _NUMBERS:
        table[name] = pd.to_numeric(table[name])
    graded = table.dropna(subset=["grade", "sclerosis_axis"])
    graded = graded.assign(site=graded["slide"].map(sites).fillna(""), unlike=_unlike(graded["label"], graded["grade"]))
    groups = []
    for grade, members in graded.groupby("grade"):
        axis = members["sclerosis_axis"].mean()
        groups.append({"grade": int(grade), "n": len(members), "axis": axis, "shown": _choose(members)})
    found = pictures(crops, {name for group in groups for name in group["shown"]["glomerulus"]}, _SIDE_PX)
    for group in groups:
        group["shown"] = [_figure(row, found[row["glomerulus"]]) for row in group["shown"].to_dict("records")]
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)
    text = page.render(
        groups=groups,
        n=len(graded),
        n_slides=graded["slide"].nunique(),
        variant=" | ".join(str(grades[key]) for key in ("extractor", "reducer", "method")),
        slides=sorted(set(graded["slide"])),
        sites=sorted(set(graded["site"]) - {""}),
        labels=sorted(set(graded["label"]) - {""}),
    )
    Path(target).write_text(text, encoding="utf-8")


def _unlike(labels: pd.Series, grades: pd.Series) -> pd.Series:
    """Whether a glomerulus has another grade than most of those with its label: bool, False without a label."""
    usual = grades.groupby(labels).agg(lambda own: own.mode().iloc[0])
    return (labels != "") & (labels.map(usual) != grades)


def _choose(members: pd.DataFrame) -> pd.DataFrame:
    """Up to `PER_GRADE` glomeruli of a grade in the order of the axis, those unlike their label first to be chosen."""
    members = members.sort_values("sclerosis_axis", kind="stable")
    odd = _evenly(members[members["unlike"]], PER_GRADE // 2)
    others = _evenly(members[~members["unlike"]], PER_GRADE - len(odd))
    return pd.concat([odd, others]).sort_values("sclerosis_axis", kind="stable")


def _evenly(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    return rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), count)).round().astype(int)]


def _figure(row: Mapping, picture: np.ndarray) -> dict:
    """What the page says of one glomerulus."""
    facts = {key: row[key] for key in ("glomerulus", "slide", "site", "label")}
    facts |= {"grade": f"{row['grade']:.0f}", "axis": f"{row['sclerosis_axis']:.2f}"}
    if not np.isnan(row["equivalent_diameter_um"]):
        facts["diameter"] = f"{row['equivalent_diameter_um']:.0f} um"
    if not np.isnan(row["centroid_x_px"]):
        facts["place"] = f"{row['centroid_x_px']:.0f}, {row['centroid_y_px']:.0f}"
    jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return {
        "name": row["glomerulus"],
        "facts": [(key, value) for key, value in facts.items() if value],
        "frame": " ".join(name for name in ("unlike", "cut") if row[name] in (True, "True")),
        "caption": " · ".join(filter(None, (facts["axis"], row["label"]))),
        "jpeg": base64.b64encode(jpeg).decode(),
    }


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Atlas of glomeruli</title>
<style>
  body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1500px; padding: 0 1.2rem 3rem; color: #222 }
  nav { position: sticky; top: 0; background: #fff; padding: .7rem 0; border-bottom: 1px solid #ccc; z-index: 1 }
  nav label { margin-right: 1.4rem; white-space: nowrap }
  h2 { margin: 1.6rem 0 .2rem }
  p { max-width: 60rem }
  .note { color: #555; margin: 0 0 .6rem }
  .grid { display: flex; flex-wrap: wrap; gap: 6px }
  figure { margin: 0; width: 112px; cursor: zoom-in; border: 3px solid transparent }
  figure img { display: block; width: 112px; height: 112px }
  figcaption { font-size: 11px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
  figure.unlike { border-color: #d03030 }
  figure.cut img { opacity: .6 }
  dialog { border: 1px solid #999; padding: 1rem }
  dialog img { width: 448px; max-width: 80vw; image-rendering: auto }
  dialog table { border-spacing: .8rem .1rem; margin-left: -.8rem }
</style>
<h1>Atlas of glomeruli</h1>
<p>{{ n }} glomeruli of {{ n_slides }} slide{{ "s" if n_slides != 1 }}, by grade. A grade is a group of the variant
{{ variant }}, which was chosen without labels; grade 0 is the group whose glomeruli are the least scarred by measure. Within a
grade they stand from the least to the most scarred, by their place on the sclerosis axis (the more contrast, edges and fine
structure, the lower).
{% if labels %}
Labels had no part in it. A red frame: another grade than most glomeruli with the same label.
{% endif %}
Pale: cut by an edge. For research; not for diagnosis.</p>
<nav>
{% for key, names in (("slide", slides), ("site", sites), ("label", labels)) if names | length > 1 %}
  <label>{{ key }} <select data-key="{{ key }}"><option value="">all</option>
  {% for name in names %}<option>{{ name }}</option>{% endfor %}</select></label>
{% endfor %}
{% if labels %}<label><input type="checkbox" id="unlike"> only those with a red frame</label>{% endif %}
  <span id="count"></span>
</nav>
{% for group in groups %}
<section>
<h2>Grade {{ group.grade }}</h2>
<p class="note">{{ group.n }} glomeruli, mean of the sclerosis axis {{ "%.2f" | format(group.axis) }}
{%- if group.shown | length < group.n %}; {{ group.shown | length }} of them shown:
those unlike their label first, the others spread evenly over the axis{% endif %}</p>
<div class="grid">
{% for each in group.shown %}
<figure class="{{ each.frame }}" tabindex="0"{% for key, value in each.facts %} data-{{ key }}="{{ value }}"{% endfor %}>
<img alt="{{ each.name }}" src="data:image/jpeg;base64,{{ each.jpeg }}"><figcaption>{{ each.caption }}</figcaption></figure>
{% endfor %}
</div>
</section>
{% endfor %}
<dialog><img alt=""><table></table><form method="dialog"><button>Close</button></form></dialog>
<script>
  const all = [...document.querySelectorAll("figure")], dialog = document.querySelector("dialog");
  const chosen = [...document.querySelectorAll("select")], unlike = document.getElementById("unlike");
  function filter() {
    let count = 0;
    for (const figure of all) {
      const shown = chosen.every(each => !each.value || figure.dataset[each.dataset.key] === each.value)
        && !(unlike && unlike.checked && !figure.classList.contains("unlike"));
      figure.style.display = shown ? "" : "none";
      count += shown;
    }
    document.getElementById("count").textContent = count + " shown";
  }
  function enlarge(figure) {
    dialog.querySelector("img").src = figure.querySelector("img").src;
    const table = dialog.querySelector("table");
    table.replaceChildren();
    const rows = [["glomerulus"], ["slide"], ["site"], ["label"], ["grade"], ["axis", "sclerosis axis"], ["diameter"],
      ["place", "x, y (px of level 0)"]];
    for (const [key, title] of rows) if (figure.dataset[key]) {
      const row = table.insertRow();
      row.insertCell().textContent = title || key;
      row.insertCell().textContent = figure.dataset[key];
    }
    dialog.showModal();
  }
  for (const figure of all) {
    figure.onclick = () => enlarge(figure);
    figure.onkeydown = event => { if (event.key === "Enter") enlarge(figure); };
  }
  for (const each of chosen) each.onchange = filter;
  if (unlike) unlike.onchange = filter;
  filter();
</script>
</html>
"""
