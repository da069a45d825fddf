"""Light through stained tissue: what a laboratory's dyes and scanner make of the amounts in a section."""

from dataclasses import dataclass

import cv2
import numpy as np

from glomerulearn.synthetic.fields import noise
from glomerulearn.synthetic.tissue import Section


@dataclass(frozen=True)
class Stain:
    """A laboratory's protocol: the optical density (R, G, B) of its two dyes, and what they bind to."""

    name: str
    haematoxylin: tuple[float, float, float]
    counterstain: tuple[float, float, float]
    # counterstain taken up by cytoplasm, matrix (basement membrane, mesangium) and red blood cells
    cytoplasm: float
    matrix: float
    blood: float
    # haematoxylin that cytoplasm takes up
    basophilia: float
    glass: tuple[int, int, int]


PAS = Stain("PAS", (0.72, 0.76, 0.36), (0.19, 0.78, 0.31), 0.30, 0.90, 0.50, 0.09, (243, 241, 244))
PALE_HE = Stain("HE", (0.78, 0.58, 0.17), (0.045, 0.43, 0.25), 0.50, 0.72, 1.35, 0.055, (247, 248, 246))


def photograph(section: Section, stain: Stain, rng: np.random.Generator) -> np.ndarray:
    """The section as a scanner sees it (Beer-Lambert): uint8 (rows, columns, 3), RGB."""
    shape = section.tissue.shape
    strength = rng.normal(1, 0.07, 2).clip(0.85, 1.15).tolist()
    thickness = 1 + 0.07 * noise(shape, 450 / section.mpp, rng) + 0.03 * noise(shape, 60 / section.mpp, rng)
    thickness *= section.tissue
    haematoxylin = (0.95 * section.nuclear + stain.basophilia * section.cytoplasm + 0.02) * thickness * strength[0]
    counterstain = stain.cytoplasm * section.cytoplasm + stain.matrix * section.matrix + stain.blood * section.blood
    counterstain *= thickness * strength[1] * (1 - 0.6 * section.nuclear)
    # the optics: a little blur, less than a pixel
    haematoxylin, counterstain = (cv2.GaussianBlur(dye, (0, 0), 0.65) for dye in (haematoxylin, counterstain))
    light = 1 + 0.006 * noise(shape, max(shape) / 3, rng)
    image = np.empty((*shape, 3), np.uint8)
    grain = rng.standard_normal(shape, dtype=np.float32) * 1.3
    for channel in range(3):
        density = haematoxylin * stain.haematoxylin[channel] + counterstain * stain.counterstain[channel]
        seen = stain.glass[channel] * light * cv2.exp(-2.302585 * density) + np.roll(grain, 977 * channel)
        image[..., channel] = np.clip(seen + 0.5, 0, 255)
    return image
