"""Hamamatsu's NDPA: nanometres from the centre of the slide, which only the slide's own file can place in pixels."""

from xml.etree.ElementTree import Element

from shapely.geometry import LineString

from glomerulearn.annotations.features import Feature, Frame, ellipse, ring
from glomerulearn.errors import InputError


def read(root: Element, frame: Frame) -> list[Feature]:
    """The class of an annotation is its title.

    Raises: InputError when the slide does not state where its centre lies.
    """
    if frame.centre_nm is None or frame.mpp is None:
        raise InputError(
            "NDPA counts nanometres from the slide's centre, and this slide's file does not say where that is "
            "(hamamatsu.XOffsetFromSlideCentre); use the .ndpi it was drawn on, or export the outlines as GeoJSON"
        )
    features = []
    for state in root.iter("ndpviewstate"):
        name = (state.findtext("title") or "").strip()
        for item in state.iter("annotation"):
            kind = item.get("type", "unknown")
            points = [_place(point, frame) for point in item.iterfind("pointlist/point")]
            if kind == "freehand" and (item.findtext("closed") or "1").strip() == "0":
                features.append(Feature(name, "open freehand", LineString(points) if len(points) > 1 else None))
            elif kind == "circle":
                radius = float(item.findtext("radius") or 0) / 1000 / frame.mpp
                x, y = _place(item, frame)
                features.append(Feature(name, kind, ellipse(x - radius, y - radius, x + radius, y + radius)))
            else:
                features.append(Feature(name, kind, ring(points) if kind in ("freehand", "rectangle") else None))
    return features


def _place(element: Element, frame: Frame) -> tuple[float, float]:
    x, y = (float(element.findtext(axis)) for axis in "xy")
    nm_per_px = frame.mpp * 1000
    return (
        (x - frame.centre_nm[0]) / nm_per_px + frame.width_px / 2,
        (y - frame.centre_nm[1]) / nm_per_px + frame.height_px / 2,
    )
