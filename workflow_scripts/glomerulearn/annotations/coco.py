"""COCO's JSON: polygons or run lengths, in pixels of an image that may be a smaller copy of the slide."""

from collections.abc import Mapping

import numpy as np
import shapely
from pycocotools import mask as coco_mask
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from glomerulearn.annotations.features import Feature, Frame, ring, scaled
from glomerulearn.errors import InputError
from glomerulearn.traces import regions


def is_coco(content: object) -> bool:
    return isinstance(content, Mapping) and {"images", "annotations"} <= set(content)


def read(content: Mapping, frame: Frame) -> list[Feature]:
    """Raises: InputError when no image of the file is this slide."""
    known = {str(image["id"]) for image in content["images"]}
    orphans = sum(str(item["image_id"]) not in known for item in content["annotations"])
    if orphans:
        raise InputError(f"COCO with {orphans} annotations of images that it does not list")
    images = [(str(image.get("file_name") or image["id"]), image) for image in content["images"]]
    image = frame.own(images, "images")
    scale = frame.scale_from(image["width"], image["height"], f"the image {image.get('file_name')}")
    names = {category["id"]: str(category["name"]) for category in content.get("categories", [])}
    features = []
    for item in content["annotations"]:
        if str(item["image_id"]) == str(image["id"]):
            kind, geometry = _geometry(item)
            geometry = None if geometry is None else scaled(geometry, scale)
            features.append(Feature(names.get(item.get("category_id"), ""), kind, geometry))
    return features


def _geometry(item: Mapping) -> tuple[str, BaseGeometry | None]:
    segmentation = item.get("segmentation")
    if isinstance(segmentation, Mapping):
        height, width = segmentation["size"]
        if isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects(segmentation, height, width)
        parts = [polygon for _, polygon in regions(np.asarray(coco_mask.decode(segmentation)))]
        return "run lengths", MultiPolygon(parts) if len(parts) > 1 else next(iter(parts), None)
    if segmentation:
        parts = [ring(np.reshape(points[: len(points) // 2 * 2], (-1, 2))) for points in segmentation]
        parts = [part for part in parts if part is not None]
        return "polygon", shapely.union_all(list(map(shapely.make_valid, parts))) if parts else None
    if item.get("bbox"):
        # a box says where a glomerulus is, not what its outline is
        x, y, width, height = item["bbox"]
        return "bounding box", box(x, y, x + width, y + height).centroid
    return "none", None
