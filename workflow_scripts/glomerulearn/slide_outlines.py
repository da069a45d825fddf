"""The pathologist's outlines of one slide, read once from whatever file they came in, and kept apart from its pixels.

So an edited outline costs no tiling and no inference. The file is GeoJSON that QuPath opens, with what was found and left
out in it as a member of its own.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from glomerulearn.annotations.features import Frame
from glomerulearn.annotations.reading import read_annotation
from glomerulearn.errors import InputError
from glomerulearn.outlines import FACTS, collection, feature
from glomerulearn.quality import describe_outlines
from glomerulearn.slides import open_slide

log = logging.getLogger(__name__)


def read_slide_outlines(
    slide: str, path: str | Path, annotation: str | Path, mpp: float | None, settings: Mapping, target: Path
) -> dict:
    """Read the outlines of a slide and write `target`; the slide is opened for its size and resolution only.

    settings: `classes` (class name -> label) and `label_images` (what their numbers are: `class` or `glomerulus`).
    Returns: what was found, with `outlines_status` ok or failed, and then the reason; a file that cannot be used has no outlines,
    and the other slides go on.
    """
    started = time.perf_counter()
    facts = {"slide": slide, "labels": sorted(set(settings["classes"].values()))}
    drawn = []
    try:
        with open_slide(path, mpp) as opened:
            names = (slide, Path(path).stem)
            stated_mpp = opened.reader.stated_mpp or opened.mpp
            frame = Frame(names, opened.width_px, opened.height_px, stated_mpp, opened.reader.centre_nm)
            found = read_annotation(annotation, settings["classes"], frame, settings["label_images"])
            facts |= {"outlines_status": "ok", "outlines_reason": ""} | describe_outlines(annotation, found, opened.mpp)
            drawn = found.outlines
    except InputError as error:
        log.error("outlines of slide %s cannot be used: %s", slide, error)
        facts |= {"outlines_status": "failed", "outlines_reason": str(error)}
    features = [feature(each.polygon, each.label) for each in drawn]
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(collection(features, **{FACTS: facts}) + "\n")
    log.info("%d outlines in %.1f s", len(drawn), time.perf_counter() - started)
    return facts
