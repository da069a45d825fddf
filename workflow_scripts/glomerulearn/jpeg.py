"""JPEG images through libjpeg-turbo: strictly, and into memory that it is fast to write to."""

import numpy as np
import simplejpeg


def buffer(shape: tuple[int, int, int]) -> np.ndarray:
    """Memory for `decode`, uint8 of `shape`, never at a multiple of 32 bytes.

    There libjpeg-turbo (AVX2) writes past the processor's cache, and whoever reads the pixels next waits a fifth longer.
    """
    count = int(np.prod(shape))
    memory = np.empty(count + 32, np.uint8)
    start = (16 - memory.ctypes.data) % 32
    return memory[start : start + count].reshape(shape)


def decode(data, out: np.ndarray, shrink: int = 1) -> np.ndarray:
    """Decode a JPEG image into `out`, uint8 (h, w, 3) RGB, reduced by 1, 2, 4 or 8.

    Raises: ValueError when any byte is wrong as far as the decoder can tell, or the image has another size.
    """
    size = {} if shrink == 1 else {"min_height": out.shape[0], "min_width": out.shape[1]}
    image = simplejpeg.decode_jpeg(data, buffer=out, **size)
    if image.shape != out.shape:
        raise ValueError(
            f"an image of {image.shape[1]} x {image.shape[0]} px instead of {out.shape[1]} x {out.shape[0]}"
        )
    return image


def encode(image: np.ndarray, quality: int) -> bytes:
    """uint8 (h, w, 3) RGB as a JPEG image with the colours at half the resolution (4:2:0), as scanners write them."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", "420")
