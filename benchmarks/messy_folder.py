"""Make an untidy image folder, as people have them, from CIFAR-10: the photographs of docs/guides/images.md.

    python benchmarks/messy_folder.py CIFAR_FOLDER OUT

Ten unbalanced classes of 40 to 800 images, no split, sides of 32 to 767 pixels in any aspect ratio, JPEG of all
qualities, PNG, WebP and GIF; some grey, with transparency, rotated by an Exif tag, copied, truncated or empty. The same
seed gives the same folder.
"""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

from PIL import Image

COUNTS = (800, 650, 550, 450, 350, 300, 200, 150, 80, 40)
ORIENTATION = 0x0112


def main(source: Path, out: Path, seed: int = 0) -> None:
    """Fill ``out`` from ``source/train/<class>/*``."""
    draw = random.Random(seed)
    classes = sorted(p for p in (source / "train").iterdir() if p.is_dir())
    for folder, count in zip(classes, COUNTS, strict=True):
        target = out / folder.name
        target.mkdir(parents=True)
        for i, path in enumerate(sorted(folder.iterdir())[:count]):
            with Image.open(path) as image:
                save(image.convert("RGB"), target / f"IMG {i:04d}", draw)
    spoil(sorted(p for p in out.rglob("*") if p.is_file()), draw)


def save(image: Image.Image, stem: Path, draw: random.Random) -> None:
    """Save one image at a random size, in a random mode and format."""
    side, ratio = draw.choice((40, 64, 96, 128, 160, 240, 480)), draw.uniform(0.6, 1.6)
    image = image.resize((side, max(32, round(side * ratio))), Image.Resampling.BICUBIC)
    kind = draw.random()
    if kind < 0.08:
        image = image.convert("L")
    suffix = draw.choices((".jpg", ".JPG", ".png", ".webp", ".gif"), (70, 10, 10, 8, 2))[0]
    if suffix.lower() == ".jpg":
        exif = Image.Exif()
        if draw.random() < 0.05:
            image, exif[ORIENTATION] = image.transpose(Image.Transpose.ROTATE_90), 6
        image.save(stem.with_suffix(suffix), quality=draw.randint(40, 95), exif=exif)
    elif suffix == ".png" and draw.random() < 0.3:
        image = image.convert("RGBA")
        image.putalpha(draw.randint(180, 255))
        image.save(stem.with_suffix(suffix))
    else:
        image.save(stem.with_suffix(suffix))


def spoil(paths: list[Path], draw: random.Random) -> None:
    """Truncate, empty and copy some images, and add other files such folders have."""
    chosen = draw.sample(paths, 32)
    for path in chosen[:12]:
        path.write_bytes(path.read_bytes()[: max(20, path.stat().st_size // 3)])
    for path in chosen[12:16]:
        path.write_bytes(b"")
    for path in chosen[16:28]:
        shutil.copyfile(path, path.with_name(f"{path.stem} (1){path.suffix}"))
    for path, other in zip(chosen[28:], chosen[24:28], strict=True):
        if path.parent != other.parent:
            shutil.copyfile(path, other.parent / f"copy of {path.name}")
    paths[0].with_name("Thumbs.db").write_bytes(b"\0" * 64)
    paths[0].with_name("notes.txt").write_text("classes by hand\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
