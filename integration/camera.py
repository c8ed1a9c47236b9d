"""A synthetic sCMOS camera: real photon statistics, every frame different, and each can be made again to compare.

The scene is a dim background with bright structures. Pixels are Poisson distributed around it, plus the camera's offset, as
the manufacturers of such cameras specify them. A few exposures are drawn at the start and then repeat, because drawing takes
longer than a camera needs for a frame; like some scientific cameras it stamps the frame number into the first pixels.
"""

import numpy as np
import numpy.typing as npt

OFFSET = 100  # counts that the camera adds to each pixel, so that read noise never goes below zero
BACKGROUND = 20.0  # photons per pixel
STRUCTURES = (60.0, 150.0, 400.0)  # photons per pixel in the bright parts
EXPOSURES = 16  # distinct draws held in memory: 8 MiB each at full size
STAMP_PIXELS = 4  # of 16 bits: the frame number, least significant first

Image = npt.NDArray[np.uint16]


class Camera:
    """Makes *frames* images of *shape* (height, width), dtype uint16."""

    def __init__(self, frames: int, shape: tuple[int, int] = (2048, 2048), seed: int = 1) -> None:
        """Draw the exposures; *seed* makes them the same again."""
        self.shape = (frames, *shape)
        self.dtype = np.dtype(np.uint16)
        random = np.random.default_rng(seed)
        brightness = _scene(shape)
        self._exposures = [_expose(random, brightness) for _ in range(min(frames, EXPOSURES))]

    def __len__(self) -> int:
        return self.shape[0]

    def frame(self, number: int) -> Image:
        """Return frame *number*, an array of its own."""
        image = self._exposures[number % len(self._exposures)].copy()
        image.flat[:STAMP_PIXELS] = [number >> 16 * place & 0xFFFF for place in range(STAMP_PIXELS)]
        return image


def _scene(shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return for each pixel which brightness it has: 0 the background, above it the structures."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    scene = np.zeros(shape, np.uint8)
    for number in range(1, len(STRUCTURES) + 1):
        scene[(rows // 16 + columns // (16 * number)) % (7 * number) == 0] = number
    return scene


def _expose(random: np.random.Generator, scene: npt.NDArray[np.uint8]) -> Image:
    image = np.empty(scene.shape, np.uint16)
    for number, photons in enumerate((BACKGROUND, *STRUCTURES)):
        where = scene == number
        image[where] = random.poisson(photons, np.count_nonzero(where)) + OFFSET
    return image
