"""Annotation files: every program's format is read, nothing is lost in silence, what is written is read again."""

import json
import logging

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from shapely.geometry import MultiPolygon, Polygon, box

from glomerulearn import outlines as outlines_module
from glomerulearn.annotations.features import Frame
from glomerulearn.annotations.reading import read_annotation
from glomerulearn.errors import InputError
from glomerulearn.export import WRITERS, write_asap, write_imagescope
from glomerulearn.outlines import Drawing, Outline, collection, unpack

KIDNEY = {"Normal": "normal", "Sclerosed": "sclerosed"}
ANY = {"": "glomerulus", "FC": "glomerulus", "G": "glomerulus", "Normal": "normal", "Sclerotic": "sclerosed"}
LARGE = Frame(("slide",), 200_000, 200_000)


def read(path, classes=KIDNEY, frame=LARGE, values="class"):
    return read_annotation(path, classes, frame, values)


def feature(geometry, name=None):
    properties = {"classification": {"name": name}} if name else {}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def square(side=10):
    ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
    return {"type": "Polygon", "coordinates": [ring]}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# real files


def test_every_glomerulus_of_kidney_mini(shared):
    folder = shared / "kidney-mini" / "annotations"
    labels = [outline.label for path in sorted(folder.glob("*.geojson")) for outline in read(path).outlines]
    assert len(labels) == 788 and labels.count("normal") == 649 and labels.count("sclerosed") == 139


@pytest.mark.parametrize(
    ("name", "program", "classes", "kinds"),
    [
        ("2f6ecfcdf.json", "QuPath GeoJSON", {"FC": 77}, {"Polygon": 73, "MultiPolygon": 4}),
        ("PAS_I_4_S_1_ROI_3.json", "QuPath GeoJSON", {"G": 3}, {"Polygon": 2, "MultiPolygon": 1}),
        ("SAS_21883_001.json", "QuPath GeoJSON", {"FC": 7, "G": 4}, {"Polygon": 10, "MultiPolygon": 1}),
        ("SESCAM_1_0.json", "QuPath GeoJSON", {"FC": 27, "G": 34}, {"Polygon": 59, "MultiPolygon": 2}),
        ("TPATH082.geojson", "QuPath GeoJSON", {"(no class)": 10, "Normal": 5, "Sclerotic": 3}, {"Polygon": 18}),
        ("histoqc_holed.geojson", "QuPath GeoJSON", {"(no class)": 1}, {"Polygon": 1}),
        (
            "aperio_TCGA-EJ-5518.xml",
            "Aperio ImageScope XML",
            {"CaP": 2, "layer 3": 1, "layer 4": 1},
            {"rectangle": 2, "polygon": 2},
        ),
        ("asap-polygon.xml", "ASAP XML", {"(no class)": 1}, {"Polygon": 1}),
        (
            "annotations_mixed.ndpa",
            "Hamamatsu NDPA",
            {"Tumor": 1, "Margin": 1, "Review here": 1, "Empty annotation": 1},
            {"freehand": 1, "open freehand": 1, "pin": 1, "unknown": 1},
        ),
    ],
)
def test_real_files_of_every_program(shared, name, program, classes, kinds):
    frame = Frame(("slide",), 200_000, 200_000, mpp=0.25, centre_nm=(0.0, 0.0))
    found = read(shared / "annotation-formats" / name, ANY | {"CaP": "x", "Tumor": "x"}, frame)
    assert (found.format, found.classes, found.kinds) == (program, classes, kinds)
    areas = sum(count for kind, count in kinds.items() if kind not in ("open freehand", "pin", "unknown"))
    assert len(found.outlines) == areas and all(outline.polygon.is_valid for outline in found.outlines)
    assert sum(found.left_out.values()) == sum(kinds.values()) - areas


def test_holes_and_parts_are_kept(shared):
    (holed,) = read(shared / "annotation-formats" / "histoqc_holed.geojson", ANY).outlines
    raw = json.loads((shared / "annotation-formats" / "histoqc_holed.geojson").read_text())["geometry"]["coordinates"]
    assert len(holed.polygon.interiors) == len(raw) - 1 > 0
    parts = [o.polygon for o in read(shared / "annotation-formats" / "2f6ecfcdf.json", ANY).outlines]
    assert sum(part.geom_type == "MultiPolygon" for part in parts) == 4


def test_imagescope_areas_are_those_that_imagescope_states(shared):
    """The file itself states the area of every region, in pixels; the rectangles have four corners in it."""
    path = shared / "annotation-formats" / "aperio_TCGA-EJ-5518.xml"
    found = read(path, ANY | {"CaP": "x"}).outlines
    import defusedxml.ElementTree

    stated = [float(region.get("Area")) for region in defusedxml.ElementTree.parse(path).iter("Region")]
    assert [outline.polygon.area for outline in found] == pytest.approx(stated, rel=0.01)


def test_ndpa_is_placed_by_the_slide(shared):
    frame = Frame(("slide",), 10_000, 8_000, mpp=0.25, centre_nm=(50_000.0, -100_000.0))
    (tumor,) = read(shared / "annotation-formats" / "annotations_mixed.ndpa", {"tumor": "x"}, frame).outlines
    # (-350000 - 50000) nm / 250 nm + 5000 = 3400; (-500000 + 100000) / 250 + 4000 = 2400
    assert tumor.polygon.bounds == (3400, 2400, 3800, 3200)
    with pytest.raises(InputError, match=r"annotations_mixed\.ndpa: NDPA counts .*XOffsetFromSlideCentre"):
        read(shared / "annotation-formats" / "annotations_mixed.ndpa", {"tumor": "x"})


# formats of which there is no real file


def test_hubmap_polygons(tmp_path):
    rings = [[[0, 0], [10, 0], [10, 10], [0, 10]]], [[[0, 0], [4, 0], [4, 4]]]
    bare = read(write(tmp_path / "a.json", [ring for (ring,) in rings]), {"": "g"})
    assert bare.format == "HuBMAP JSON" and [o.polygon.area for o in bare.outlines] == [100, 8]
    records = [
        {"id": "other", "annotations": []},
        {"id": "slide", "annotations": [{"type": "glomerulus", "coordinates": ring} for ring in rings]},
    ]
    lines = read(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, records))), {"glomerulus": "g"})
    assert [o.polygon.area for o in lines.outlines] == [100, 8]
    with pytest.raises(InputError, match=r"a\.jsonl: annotations for other, slide, none for this slide \(mine\)"):
        read(tmp_path / "a.jsonl", {"glomerulus": "g"}, Frame(("mine",), 50, 50))


def ring_mask(height=60, width=80):
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - 25.5, columns - 40.5)
    mask = (distance < 18) & (distance > 6)
    mask[50:58, 3:9] = True
    return mask


def runs(mask):
    """Run lengths as HuBMAP's rule says: pixels are counted from 1, down the columns."""
    flat = np.concatenate([[0], mask.T.reshape(-1).astype(int), [0]])
    edges = np.flatnonzero(np.diff(flat)) + 1
    return " ".join(f"{start} {end - start}" for start, end in zip(edges[::2], edges[1::2], strict=True))


def test_hubmap_run_lengths_are_the_mask(tmp_path):
    mask = ring_mask()
    mask[:, 70] = True  # runs that join across the end of a column
    mask[0:30, 71] = True
    path = write(tmp_path / "train.csv", f"id,encoding\nother,1 5\nslide,{runs(mask)}\n")
    found = read(path, {"": "g"}, Frame(("slide",), 80, 60))
    assert found.format == "HuBMAP run lengths" and len(found.outlines) == 3
    assert np.array_equal(Drawing(found.outlines, ["g"], 1.0).window(0, 0, 80, 60) > 0, mask)
    with pytest.raises(InputError, match=r"reach pixel \d+ of an image of 40 x 30 px"):
        read(path, {"": "g"}, Frame(("slide",), 40, 30))


def test_coco_polygons_and_run_lengths_at_another_scale(tmp_path):
    from pycocotools import mask as coco_mask

    mask = ring_mask()
    packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    packed["counts"] = packed["counts"].decode()
    flat = np.concatenate([[0], mask.T.reshape(-1).astype(int)])
    lengths = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat)), [mask.size]]))
    content = {
        "images": [{"id": 7, "file_name": "export/slide.png", "width": 80, "height": 60}, {"id": 8, "file_name": "b"}],
        "categories": [{"id": 1, "name": "Normal"}, {"id": 2, "name": "Sclerosed"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]]},
            {"image_id": 7, "category_id": 2, "segmentation": {"size": [60, 80], "counts": lengths.tolist()}},
            {"image_id": 7, "category_id": 2, "segmentation": packed},
            {"image_id": 7, "category_id": 1, "segmentation": [], "bbox": [1, 2, 3, 4]},
            {"image_id": 8, "category_id": 1, "segmentation": [[0, 0, 99, 0, 99, 99]]},
        ],
    }
    found = read(write(tmp_path / "coco.json", content), KIDNEY, Frame(("slide",), 320, 240))
    assert found.classes == {"Normal": 2, "Sclerosed": 2}
    assert found.left_out == {"drawn twice": 1, "bounding box encloses no area": 1}
    assert found.outlines[0].polygon.equals(box(0, 0, 40, 40)) and found.outlines[1].label == "sclerosed"
    assert found.outlines[1].polygon.area == pytest.approx(mask.sum() * 16, rel=0.01)


def test_labelme_shapes(tmp_path):
    content = {
        "version": "5.5.0", "imageWidth": 100, "imageHeight": 50,
        "shapes": [
            {"label": "Normal", "shape_type": "polygon", "points": [[0, 0], [10, 0], [10, 10]]},
            {"label": "Normal", "shape_type": "circle", "points": [[50, 25], [60, 25]]},
            {"label": "Sclerosed", "shape_type": "rectangle", "points": [[20, 20], [10, 5]]},
            {"label": "Normal", "shape_type": "line", "points": [[0, 0], [5, 5]]},
        ],
    }  # fmt: skip
    found = read(write(tmp_path / "l.json", content), KIDNEY, Frame(("s",), 200, 100))
    assert found.format == "labelme JSON" and found.left_out == {"line encloses no area": 1}
    assert [round(o.polygon.area) for o in found.outlines] == [200, pytest.approx(np.pi * 400, rel=0.01), 600]
    with pytest.raises(InputError, match="100 x 50 px, the slide 200 x 200"):
        read(tmp_path / "l.json", KIDNEY, Frame(("s",), 200, 200))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("scale", [1, 4])
def test_label_images_with_and_without_a_scale(tmp_path, suffix, scale):
    labels = ring_mask().astype(np.uint8) * 2
    labels[50:58, 3:9] = 1
    path = tmp_path / f"mask.{suffix}"
    Image.fromarray(labels).save(path) if suffix == "png" else tifffile.imwrite(path, labels, compression="zlib")
    found = read(path, {"1": "normal", "2": "sclerosed"}, Frame(("s",), 80 * scale, 60 * scale))
    assert found.format == "label image" and [o.label for o in found.outlines] == ["normal", "sclerosed"]
    drawn = Drawing(found.outlines, ["normal", "sclerosed"], scale).window(0, 0, 80, 60)
    assert np.array_equal(drawn, labels)
    assert len(found.outlines[1].polygon.interiors) == 1


def test_numbers_of_a_label_image_may_be_glomeruli(tmp_path):
    labels = np.zeros((60, 80), np.uint16)
    labels[5:20, 5:20], labels[5:20, 20:40], labels[30:50, 30:60] = 301, 302, 303  # two of them touch
    tifffile.imwrite(tmp_path / "m.tif", labels)
    found = read(tmp_path / "m.tif", {"": "g"}, Frame(("s",), 80, 60), values="glomerulus")
    assert [o.polygon.area for o in found.outlines] == pytest.approx([225, 300, 600], abs=0.6)
    with pytest.raises(InputError, match=r"'301': 1.*outlines: classes"):
        read(tmp_path / "m.tif", {"": "g"}, Frame(("s",), 80, 60))
    Image.fromarray((labels > 0).astype(np.uint8) * 255).save(tmp_path / "b.png")
    assert len(read(tmp_path / "b.png", {"": "g"}, Frame(("s",), 80, 60)).outlines) == 2


def test_colours_of_a_label_image_are_classes(tmp_path):
    image = np.zeros((60, 80, 3), np.uint8)
    image[5:20, 5:20], image[30:50, 30:60] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(image).save(tmp_path / "c.png")
    found = read(tmp_path / "c.png", {"#FF0000": "sclerosed", "#0000ff": "normal"}, Frame(("s",), 80, 60))
    assert sorted(o.label for o in found.outlines) == ["normal", "sclerosed"]


def test_imagescope_holes_ellipses_and_lines(tmp_path):
    def region(kind, points, negative=0, text=""):
        corners = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)
        return f'<Region Type="{kind}" NegativeROA="{negative}" Text="{text}"><Vertices>{corners}</Vertices></Region>'

    corners = [(0, 0), (100, 0), (100, 100), (0, 100)]
    hole = [(40, 40), (60, 40), (60, 60), (40, 60)]
    regions = region(0, corners) + region(0, hole, 1) + region(2, [(200, 0), (300, 50)], text="Sclerosed")
    regions += region(4, [(0, 0), (5, 5)])
    path = write(
        tmp_path / "a.xml",
        f'<Annotations><Annotation Name="Normal"><Regions>{regions}</Regions></Annotation></Annotations>',
    )
    found = read(path)
    assert found.left_out == {"ruler encloses no area": 1} and [o.label for o in found.outlines] == [
        "normal",
        "sclerosed",
    ]
    assert found.outlines[0].polygon.area == 10_000 - 400
    assert found.outlines[1].polygon.area == pytest.approx(np.pi * 50 * 25, rel=0.01)


def test_imagescope_layers_without_names_can_be_told_apart(tmp_path):
    def layer(identity, x, attribute=""):
        corners = "".join(f'<Vertex X="{x + i}" Y="{j}"/>' for i, j in ((0, 0), (9, 0), (9, 9), (0, 9)))
        region = f'<Regions><Region Type="0"><Vertices>{corners}</Vertices></Region></Regions>'
        return f'<Annotation Id="{identity}">{attribute}{region}</Annotation>'

    named = '<Attributes><Attribute Name="Description" Value="Sclerosed"/></Attributes>'
    path = write(tmp_path / "a.xml", f"<Annotations>{layer(1, 0)}{layer(2, 20)}{layer(3, 40, named)}</Annotations>")
    found = read(path, {"": "glomerulus", "sclerosed": "sclerosed"})
    assert found.classes == {"layer 1": 1, "layer 2": 1, "Sclerosed": 1}
    assert [o.label for o in found.outlines] == ["glomerulus", "glomerulus", "sclerosed"]
    assert [o.label for o in read(path, {"layer 2": "normal"}).outlines] == ["normal"]
    alone = read(write(tmp_path / "b.xml", f"<Annotations>{layer(1, 0)}</Annotations>"), {"": "glomerulus"})
    assert alone.classes == {"(no class)": 1}


def test_an_outline_in_anothers_hole_is_kept(tmp_path):
    ring = box(0, 0, 100, 100).difference(box(20, 20, 80, 80))
    outlines = [Outline(ring, "g"), Outline(box(40, 40, 60, 60), "g")]
    write_imagescope(tmp_path / "a.xml", outlines)
    again = read(tmp_path / "a.xml", {"g": "g"}).outlines
    assert all(one.polygon.equals(other.polygon) for one, other in zip(outlines, again, strict=True))


@pytest.mark.parametrize(
    ("width", "height", "fits"), [(9910, 8000, False), (990, 800, False), (1000, 800, True), (333, 267, True)]
)
def test_an_image_of_another_shape_is_not_stretched(tmp_path, width, height, fits):
    frame = Frame(("s",), 10_000, 8_000)
    if fits:
        assert frame.scale_from(width, height, "it") == (10_000 / width, 8_000 / height)
    else:
        with pytest.raises(InputError, match=f"it is {width} x {height} px, the slide 10000 x 8000"):
            frame.scale_from(width, height, "it")


def test_the_slide_is_found_among_many():
    frame = Frame(("S19",), 10, 10)
    assert frame.own([("S19.1", 1), ("S19", 2)], "records") == 2 and frame.own([("a/s19.TIF", 3), ("S1", 4)], "") == 3
    with pytest.raises(InputError, match="records for 2 that are called S19"):
        frame.own([("a/S19.png", 1), ("b/S19.png", 2)], "records")


# dirt


@pytest.mark.parametrize("wrap", [lambda f: {"type": "FeatureCollection", "features": [f]}, lambda f: [f], lambda f: f])
def test_three_shapes_of_geojson(tmp_path, wrap):
    path = write(tmp_path / "o.geojson", wrap(feature(square(), "NORMAL")))
    assert [outline.label for outline in read(path).outlines] == ["normal"]


def test_dirt_is_counted_and_logged(tmp_path, caplog):
    bowtie = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    line = {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}
    features = [
        feature(square(), "Normal"), feature(bowtie, "Normal"), feature(line, "Normal"), feature(None, "Normal"),
        feature(square(), "Vein"), feature(square(), "Normal"),
    ]  # fmt: skip
    with caplog.at_level(logging.INFO):
        found = read(write(tmp_path / "o.geojson", features))
    assert len(found.outlines) == 2 and found.outlines[1].polygon.is_valid and found.outlines[1].polygon.area == 50
    assert found.left_out == {
        "LineString encloses no area": 1, "None encloses no area": 1, "class 'Vein' is not in outlines: classes": 1,
        "drawn twice": 1,
    }  # fmt: skip
    assert all(reason in caplog.text for reason in found.left_out)


def test_no_usable_outline_is_an_error(tmp_path):
    path = write(tmp_path / "o.geojson", [feature(square(), "Glom")] * 3)
    with pytest.raises(InputError, match=r"o\.geojson: QuPath GeoJSON with 3 features.*'Glom': 3.*outlines: classes"):
        read(path)
    assert read(write(tmp_path / "e.geojson", [])).outlines == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<svg/>", "XML that begins with <svg>"),
        ("<Annotations><broken", "damaged"),
        ('{"a": 1}', "not of a format that is known"),
        ("[1, 2", "damaged"),
        ("x,y\n1,2\n", "not a format that is known"),
        ("", "not a format that is known"),
        ('{"images": [{"id": 1, "file_name": "slide", "width": 0, "height": 0}], "annotations": []}', "0 x 0 px"),
        ('{"images": [], "annotations": [{"image_id": 5}]}', "1 annotations of images that it does not list"),
        ('[{"type": "Feature", "properties": {"classification": {"name": 1}}, "geometry": null}]', "'1': 1"),
        ("id,encoding\nslide,1 x\n", "no whole number"),
        ("\x00\x01\x02,\r4", "not a format that is known"),
        (
            '<ASAP_Annotations><Annotation><Coordinate Order="?" X="1" Y="2"/></Annotation></ASAP_Annotations>',
            "damaged",
        ),
        ('<!DOCTYPE a [<!ENTITY b "c">]><Annotations>&b;</Annotations>', "EntitiesForbidden"),
    ],
)
def test_what_is_no_annotation_is_named(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as error:
        read(write(tmp_path / "x.geojson", content))
    assert "x.geojson" in str(error.value)


def test_outlines_beyond_the_slide_are_counted(tmp_path):
    path = write(tmp_path / "o.geojson", [feature(square(50), "Normal"), feature(square(), "Normal")])
    assert read(path, frame=Frame(("s",), 30, 30)).outside == 1
    far = square()
    far["coordinates"] = [[[x + 500, y] for x, y in far["coordinates"][0]]]
    with pytest.raises(InputError, match=r"all 1 outlines lie outside the slide of 30 x 30 px"):
        read(write(tmp_path / "f.geojson", [feature(far, "Normal")]), frame=Frame(("s",), 30, 30))


# drawing, keeping


def test_drawing_keeps_area_place_and_holes():
    centre, scale = (103.3, 87.6), 2.5
    disc = shapely.Point(centre).buffer(60).difference(shapely.Point(centre).buffer(20))
    drawn = Drawing([Outline(disc, "b")], ["a", "b"], scale).window(3, 5, 70, 60)
    assert set(np.unique(drawn)) == {0, 2}
    assert abs((drawn > 0).sum() * scale**2 / disc.area - 1) < 0.01
    rows, columns = np.nonzero(drawn)
    found = (columns.mean() + 0.5 + 3) * scale, (rows.mean() + 0.5 + 5) * scale
    assert np.hypot(found[0] - centre[0], found[1] - centre[1]) < 0.1 * scale
    assert drawn[int(centre[1] / scale) - 5, int(centre[0] / scale) - 3] == 0


def test_real_glomeruli_are_drawn_without_a_shift(shared):
    """At the target mpp of 2 um: area within 1 %, no shift over all of a slide."""
    found = read(shared / "kidney-mini" / "annotations" / "HE_I_2_S_2.geojson").outlines
    scale = 2.0 / 2.795
    errors, offsets = [], []
    for outline in found:
        polygon = outline.polygon
        left, top = int(polygon.bounds[0] / scale) - 2, int(polygon.bounds[1] / scale) - 2
        size = [int((polygon.bounds[i + 2] - polygon.bounds[i]) / scale) + 5 for i in (0, 1)]
        drawn = Drawing([outline], ["normal", "sclerosed"], scale).window(left, top, *size) > 0
        rows, columns = np.nonzero(drawn)
        errors.append(drawn.sum() * scale**2 / polygon.area - 1)
        centre = (columns.mean() + 0.5 + left) * scale, (rows.mean() + 0.5 + top) * scale
        offsets.append([(found - own) / scale for found, own in zip(centre, polygon.centroid.coords[0], strict=True)])
    assert len(found) > 50 and np.abs(errors).max() < 0.01
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.02 and np.abs(offsets).max() < 0.2


def test_outlines_survive_a_file():
    outlines = [
        Outline(Polygon([(0, 0), (9.25, 0), (9, 9)], [[(5, 2), (7, 2), (7, 4)]]), "sclerosed"),
        Outline(MultiPolygon([box(0, 0, 1, 1), box(5, 5, 6, 6)]), "normal"),
    ]
    assert (
        unpack(json.loads(collection(outlines_module.feature(each.polygon, each.label) for each in outlines)))
        == outlines
    )


def parts(outlines):
    """Single polygons in a fixed order: ASAP and ImageScope know no MultiPolygon."""
    single = [part for o in outlines for part in getattr(o.polygon, "geoms", [o.polygon])]
    return sorted(single, key=lambda part: part.bounds)


@pytest.mark.parametrize("program", ["qupath", "asap", "imagescope"])
@pytest.mark.parametrize("name", ["histoqc_holed.geojson", "2f6ecfcdf.json", "TPATH082.geojson"])
def test_what_is_written_is_read_again(shared, tmp_path, program, name):
    found = read(shared / "annotation-formats" / name, ANY).outlines
    classes = {label: label for label in ANY.values()}
    WRITERS[program](tmp_path / "again", found)
    again = read(tmp_path / "again", classes).outlines
    assert sorted(o.label for o in again for _ in parts([o])) == sorted(o.label for o in found for _ in parts([o]))
    first, second = parts(found), parts(again)
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert len(one.interiors) == len(other.interiors)
        assert shapely.hausdorff_distance(one.exterior, other.exterior) < 0.5
        # a half-pixel seam all round is more than rounding may cost
        assert one.symmetric_difference(other).area < 0.5 * one.length


def test_holes_survive_in_asap_which_knows_none(tmp_path):
    holed = Polygon(box(0, 0, 100, 100).exterior, [box(10, 10, 30, 30).exterior, box(50, 50, 90, 80).exterior])
    write_asap(tmp_path / "a.xml", [Outline(holed, "g")])
    (again,) = read(tmp_path / "a.xml", {"g": "g"}).outlines
    assert again.polygon.equals(holed)
