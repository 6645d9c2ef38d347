"""Animations."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pushforward.files import write_atomically
from pushforward.plotting.style import INK

COLORS, GREYS = 256, 16
BLOCK = 20_000
Pixels = NDArray[np.uint8]


def animation(
    frames: Iterable[Figure], path: str | Path, fps: float = 10, *, hold: float = 1.0, dpi: int = 100
) -> None:
    """Write figures as the frames of a GIF that repeats for ever, whole or not at all.

    All frames share one palette, made for all of them, so that colours do not flicker. Keep windows and titles of one
    size between frames, so that nothing jumps.

    Args:
        frames: figures of one size; each is drawn as it comes, so a generator saves memory.
        path: of the file, which ends in .gif; missing folders are made.
        fps: frames per second, up to 50.
        hold: seconds for which the last frame stays.
        dpi: pixels per inch.

    Raises:
        ValueError: there are no frames, or they differ in size.
    """
    images = [_render(figure, dpi) for figure in frames]
    if not images:
        raise ValueError("expected at least one frame, got none")
    sizes = {image.shape[1::-1] for image in images}
    if len(sizes) > 1:
        raise ValueError(f"expected frames of one size, got {sorted(sizes)} pixels")
    first, *rest = _share_palette(images)
    delay = round(1000 / fps)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        first.save(
            temporary,
            save_all=True,
            append_images=rest,
            duration=[delay] * len(rest) + [delay + round(1000 * hold)],
            loop=0,
            optimize=True,
        )


def _render(figure: Figure, dpi: int) -> Pixels:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _share_palette(images: list[Pixels]) -> list[Image.Image]:
    """Each frame in the colours of one palette: greys from ink to pure white, and the colours of all frames."""
    packed = [(image.astype(np.int32) << [16, 8, 0]).sum(-1) for image in images]
    codes = np.unique(np.concatenate([np.unique(frame) for frame in packed]))
    colors = (codes[:, None] >> [16, 8, 0] & 255).astype(np.uint8)
    sheet = Image.fromarray(colors[None]).quantize(COLORS - GREYS, method=Image.Quantize.MEDIANCUT)
    greys = 255 * np.linspace(to_rgb(INK), 1, GREYS)
    palette = np.concatenate([np.array(sheet.getpalette()).reshape(-1, 3), greys.round().astype(int)])
    blocks = np.array_split(colors.astype(np.float32), -(-len(colors) // BLOCK))
    nearest = np.concatenate([np.argmin((palette**2).sum(-1) - 2 * block @ palette.T, axis=-1) for block in blocks])
    frames = [Image.fromarray(nearest.astype(np.uint8)[np.searchsorted(codes, frame)]) for frame in packed]
    for frame in frames:
        frame.putpalette(palette.flatten().tolist())
    return frames
