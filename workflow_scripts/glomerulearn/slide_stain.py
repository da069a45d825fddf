"""The stain of a whole slide, and how to bring it to one that all slides share, without knowing what is on it.

Reinhard's idea (Reinhard et al. 2001: give one picture the mean and spread of another) in optical density, where dyes add
up. It works on each channel alone, so that a slide's normalisation is one table with 256 entries per channel.
"""

import numpy as np

GLASS = 220  # a pixel with no channel below this is no tissue
_DENSITY = -np.log10((np.arange(256) + 1) / 256)  # optical density of an 8-bit value
# what every slide's tissue is brought to, in red, green, blue: a strong H&E
_MEAN = np.array([0.22, 0.42, 0.26])
_STD = np.array([0.13, 0.19, 0.13])
_MAX_FACTOR = 2.5  # a pale slide is not stretched until its noise looks like nuclei
_GLASS_DENSITY, _TISSUE_DENSITY = 0.04, 0.12  # below the first nothing changes, above the second everything does


def density(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the tissue's optical density: float (3,) each, red, green, blue; zeros without tissue.

    patches: uint8 (N, h, w, 3), or any shape that ends in 3.
    """
    pixels = patches.reshape(-1, 3)
    tissue = _DENSITY[pixels[pixels.min(axis=1) < GLASS]]
    return (tissue.mean(axis=0), tissue.std(axis=0)) if len(tissue) else (np.zeros(3), np.zeros(3))


def lookup(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """The table uint8 (256, 1, 3) that brings tissue of this `density` to the common one; glass stays glass."""
    factor = np.clip(_STD / np.maximum(std, 1e-3), 1 / _MAX_FACTOR, _MAX_FACTOR)
    table = np.empty((256, 1, 3), np.uint8)
    for channel in range(3):
        changed = (_DENSITY - mean[channel]) * factor[channel] + _MEAN[channel]
        knee = max((_TISSUE_DENSITY - mean[channel]) * factor[channel] + _MEAN[channel], _GLASS_DENSITY)
        between = np.interp(_DENSITY, [0, _GLASS_DENSITY, _TISSUE_DENSITY], [0, _GLASS_DENSITY, knee])
        result = np.where(_DENSITY < _TISSUE_DENSITY, between, np.maximum(changed, knee))
        table[:, 0, channel] = np.clip(np.round(256 * 10**-result - 1), 0, 255)
    return table
