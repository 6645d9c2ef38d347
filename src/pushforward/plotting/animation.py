"""Animations."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from pushforward.files import write_atomically

COLORS = 128


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
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise ValueError(f"expected frames of one size, got {sorted(sizes)} pixels")
    palette = _shared_palette(images)
    first, *rest = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
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


def _render(figure: Figure, dpi: int) -> Image.Image:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return Image.open(buffer).convert("RGB")


def _shared_palette(images: list[Image.Image]) -> Image.Image:
    """White, and the colours found on a sheet of at most 17 of the frames."""
    chosen = images[:: -(-len(images) // 16)] + images[-1:]
    width, height = images[0].size
    sheet = Image.new("RGB", (width, height * len(chosen)))
    for i, image in enumerate(chosen):
        sheet.paste(image, (0, i * height))
    palette = sheet.quantize(COLORS - 1, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette.putpalette([*(palette.getpalette() or [])[: 3 * (COLORS - 1)], 255, 255, 255])
    return palette
