"""Random views of a training window: what differs between two slides of the same thing, and nothing else.

Geometry (flip, rotation, scale, elastic) is one resampling; stain and colour are one 3 x 3 matrix in optical density,
where dyes add up (Ruifrok, Johnston 2001; stain jitter after Tellez et al. 2018).
"""

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from glomerulearn.slide_stain import GLASS

# rows: optical density of haematoxylin, eosin, and their residual in R, G, B (Ruifrok, Johnston 2001)
_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)  # natural optical density of an 8-bit value

_MIN_PASTED_PX = 200

Reader = Callable[[int, int, int, int], np.ndarray]


def random_view(
    read_image: Reader, read_label: Reader, centre: tuple[float, float], size: int, settings: Mapping, rng
) -> tuple[np.ndarray, np.ndarray]:
    """A window of `size` px around `centre` (x, y), turned, zoomed and bent at random; its colours are the slide's.

    read_image, read_label: (x, y, width, height) -> array, as PatchStore's windows.
    settings: `rotation` (bool, any angle), `flip` (bool), `scale` [low, high], `elastic_px`.
    Returns: uint8 (size, size, 3), uint8 (size, size).
    """
    maps, origin, extent = _geometry(centre, size, settings, rng)
    border = cv2.BORDER_CONSTANT
    image = cv2.remap(read_image(*origin, *extent), *maps, cv2.INTER_LINEAR, None, border, (255, 255, 255))
    label = cv2.remap(read_label(*origin, *extent), *maps, cv2.INTER_NEAREST, None, border, 0)
    return image, label


def change_colours(image: np.ndarray, settings: Mapping, rng) -> np.ndarray:
    """Another laboratory's stain, another scanner's colours and faults: uint8 -> uint8 (h, w, 3).

    settings: `stain`, `colour`, `blur` (shares of full strength or of probability; 0 = off).
    """
    return _degrade(jitter_stain(image, settings["stain"], settings["colour"], rng), settings["blur"], rng)


def paste_glomerulus(
    image: np.ndarray, label: np.ndarray, donor: np.ndarray, donor_label: np.ndarray, rng
) -> tuple[np.ndarray, np.ndarray]:
    """Lay the glomerulus in the middle of a donor window somewhere into a window of another slide, in its colours.

    Copy and paste (Ghiasi et al. 2021) shows glomeruli that only a few slides have, such as sclerosed ones, among the
    tissue of all slides. The window stays as it is where the glomerulus would lie on glass or on another one.
    image, donor: uint8 (size, size, 3); label, donor_label: uint8 (size, size). Returns: the window with the glomerulus.
    """
    size = len(label)
    count, parts = cv2.connectedComponents((donor_label > 0).astype(np.uint8))
    middle = parts[size // 4 : -(size // 4), size // 4 : -(size // 4)]
    present = np.bincount(middle.ravel(), minlength=count)[1:]
    if not present.any():
        return image, label
    own = (parts == 1 + present.argmax()).astype(np.uint8)
    shift = np.float32([[1, 0, rng.integers(-size // 3, size // 3)], [0, 1, rng.integers(-size // 3, size // 3)]])
    # a little of what surrounds it comes along, so that its capsule is not cut
    area = cv2.warpAffine(cv2.dilate(own, np.ones((7, 7), np.uint8)), shift, (size, size))
    inside = area > 0
    if cv2.countNonZero(area) < _MIN_PASTED_PX or label[inside].any():
        return image, label
    tissue = _tissue(image)
    if tissue[inside].mean() < 0.9:
        return image, label
    around = _tissue(donor) & (own == 0)
    if np.count_nonzero(around) < _MIN_PASTED_PX:
        return image, label
    share = cv2.GaussianBlur(area.astype(np.float32), (0, 0), 1.5)
    left, top, width, height = cv2.boundingRect((share > 0).astype(np.uint8))
    box = slice(top, top + height), slice(left, left + width)  # nothing changes outside
    moved = cv2.warpAffine(donor, shift, (size, size), flags=cv2.INTER_NEAREST)[box]
    recoloured = _in_colours_of(moved, _colours(donor, around), _colours(image, tissue))
    share = share[box][..., None]
    mixed = image.copy()
    mixed[box] = np.round(image[box] * (1 - share) + recoloured * share).astype(np.uint8)
    pasted = cv2.warpAffine(donor_label * own, shift, (size, size), flags=cv2.INTER_NEAREST)
    return mixed, np.where(pasted > 0, pasted, label)


def _tissue(image: np.ndarray) -> np.ndarray:
    red, green, blue = cv2.split(image)
    return cv2.min(cv2.min(red, green), blue) < GLASS


def _colours(image: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the optical densities (3) there."""
    mean, spread = cv2.meanStdDev(cv2.LUT(image, _DENSITY), mask=where.astype(np.uint8))
    return mean.ravel().astype(np.float32), spread.ravel().astype(np.float32)


def _in_colours_of(
    image: np.ndarray, own: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Give an image the mean and spread of optical densities (Reinhard et al. 2001) that other tissue has.

    own, wanted: `_colours` of the tissue around, here and there.
    """
    factor = np.clip(wanted[1] / (own[1] + 1e-3), 0.5, 2)
    density = (cv2.LUT(image, _DENSITY) - own[0]) * factor + wanted[0]
    return np.clip(256 * np.exp(-np.maximum(density, 0)) - 1, 0, 255).astype(np.uint8)


def _geometry(centre, size: int, settings: Mapping, rng):
    angle = rng.uniform(0, 2 * np.pi) if settings["rotation"] else 0.0
    zoom = np.exp(rng.uniform(*np.log(settings["scale"])))
    matrix = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if settings["flip"] and rng.random() < 0.5:
        matrix[:, 0] *= -1
    axis = np.arange(size, dtype=np.float32) - (size - 1) / 2
    matrix = matrix.astype(np.float32)
    map_x = matrix[0, 0] * axis + (matrix[0, 1] * axis)[:, None]
    map_y = matrix[1, 0] * axis + (matrix[1, 1] * axis)[:, None]
    if settings["elastic_px"]:
        bent_x, bent_y = cv2.split(_displacement(size, settings["elastic_px"], rng))
        map_x += bent_x
        map_y += bent_y
    ranges = [cv2.minMaxLoc(part)[:2] for part in (map_x, map_y)]
    # whole pixels apart, so that single precision is enough anywhere on a slide
    corner = [int(np.floor(low + place)) for (low, _), place in zip(ranges, centre, strict=True)]
    extent = [
        int(np.ceil(high + place)) - first + 2 for (_, high), place, first in zip(ranges, centre, corner, strict=True)
    ]
    map_x += np.float32(centre[0] - corner[0])
    map_y += np.float32(centre[1] - corner[1])
    return (map_x, map_y), tuple(corner), tuple(extent)


def _displacement(size: int, strength_px: float, rng) -> np.ndarray:
    """A displacement field (size, size, 2) (Simard et al. 2003), coarse noise enlarged, standard deviation `strength_px`."""
    side = max(3, size // 32)
    coarse = rng.normal(0, strength_px, (2, side, side)).astype(np.float32)
    return cv2.resize(coarse.transpose(1, 2, 0), (size, size), interpolation=cv2.INTER_CUBIC)


def jitter_stain(image: np.ndarray, stain: float, colour: float, rng) -> np.ndarray:
    """Vary how strongly each dye stains (`stain`) and how a scanner mixes colours (`colour`): uint8 -> uint8 (h, w, 3)."""
    if not stain and not colour:
        return image
    # less than nothing, as exp takes it
    light = cv2.transform(cv2.LUT(image, _DENSITY), -density_matrix(stain, colour, rng).T.astype(np.float32))
    cv2.exp(light, light)
    light *= 256
    light -= 1
    return np.clip(light, 0, 255, out=light).astype(np.uint8)


def density_matrix(stain: float, colour: float, rng) -> np.ndarray:
    """A random change of optical density: a row of three times (4, 3), the last row is what is added."""
    dyes = np.diag(np.exp(rng.normal(0, stain, 3)))
    matrix = np.linalg.inv(_HED) @ dyes @ _HED @ (np.eye(3) + rng.normal(0, colour / 3, (3, 3)))
    matrix *= np.exp(rng.normal(0, colour))
    offset = rng.normal(0, 0.1 * colour, 3)
    return np.vstack([matrix, offset])


def _degrade(image: np.ndarray, share: float, rng) -> np.ndarray:
    if rng.random() < share:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.3))
    if rng.random() < share:
        strength = np.float32(rng.uniform(1, 8))
        noise = rng.standard_normal(image.shape, np.float32) * strength
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < share:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 90))]
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
    return image
