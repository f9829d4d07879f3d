"""Measure how fast images in memory reach the network: `msgdas.data.Batches` against the usual ``DataLoader``.

    python benchmarks/data_path.py --images 10000 --batch 64 --rounds 15 --clock cpu

All read the same random images on one core, with random crop (4 pixels), flip and normalisation, without and with
cutout (16 pixels). Ours reads one uint8 tensor. "PIL" is ``DataLoader`` without workers and torchvision's transforms
over PIL images in memory; "JPEG" the same over JPEG files in memory. A row is the median, with quartiles, of the time
ratios within the rounds. Target 8: at most 1/8 of the time of PIL images.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from msgdas.bench.rows import Row, machine, to_table, write_rows
from msgdas.bench.speed import CLOCKS, in_turn
from msgdas.data.augment import Augment
from msgdas.data.batches import Batches
from msgdas.data.images import Images
from msgdas.errors import InputError

SIDE, CROP, CUTOUT = 32, 4, 16
MEAN, STD = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
TARGET = 1 / 8
RESULTS = Path(__file__).parent / "results" / "data_path.csv"

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class OneByOne(Dataset[tuple[Tensor, int]]):
    """The usual data set: each image is opened and transformed on its own."""

    images: Sequence[Image.Image] | Sequence[bytes]
    labels: Sequence[int]
    transform: Callable[[Image.Image], Tensor]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        opened = Image.open(io.BytesIO(image)).convert("RGB") if isinstance(image, bytes) else image
        return self.transform(opened), self.labels[index]


def cut_square(image: Tensor) -> Tensor:
    """Cutout of a normalised image, in place; the square is clipped at the border."""
    top, left = (torch.randint(SIDE, (2,)) - CUTOUT // 2).tolist()
    image[:, max(0, top) : top + CUTOUT, max(0, left) : left + CUTOUT] = 0.0
    return image


def random_images(count: int) -> Images:
    """Smooth random images: a JPEG of noise would take longer to decode than a photograph."""
    coarse = torch.rand(count, 3, SIDE // 4, SIDE // 4)
    pixels = F.interpolate(coarse, SIDE, mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)
    return Images(pixels, torch.randint(10, (count,))).take(torch.arange(count))


def paths(images: Images, batch_size: int, cutout: int) -> dict[str, Callable[[int], Iterable[Batch]]]:
    """The three data paths by name, each a function from the epoch to its batches."""
    pictures = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in images.pixels]
    files = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    steps = [transforms.RandomCrop(SIDE, padding=CROP), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    steps += [transforms.Normalize(MEAN.tolist(), STD.tolist()), *([cut_square] if cutout else [])]
    labels = images.labels.tolist()
    ours = Batches(images, batch_size, mean=MEAN, std=STD, augment=Augment(CROP, True, cutout))
    from_pil, from_jpeg = (
        DataLoader(OneByOne(held, labels, transforms.Compose(steps)), batch_size, shuffle=True, drop_last=True)
        for held in (pictures, files)
    )
    return {"ours": ours.epoch, "PIL": lambda epoch: from_pil, "JPEG": lambda epoch: from_jpeg}


def measure(
    make: Mapping[str, Callable[[int], Iterable[Batch]]], batches: int, rounds: int, clock: str
) -> dict[str, list[float]]:
    """Seconds for ``batches`` batches per round, after one warm-up round, in an order that changes."""
    now = CLOCKS[clock]
    found: dict[str, list[float]] = {name: [] for name in make}
    for turn in range(-1, rounds):
        gc.collect()
        for name in in_turn(make, turn):
            before = now()
            deque(islice(make[name](turn + 1), batches), maxlen=0)
            if turn >= 0:
                found[name].append(now() - before)
    return found


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """Time ratios, then images per second, without and with cutout."""
    torch.manual_seed(0)
    images = random_images(args.images)
    count = min(args.batches, args.images // args.batch)
    for cutout, text in ((0, ""), (CUTOUT, ", cutout")):
        seconds = measure(paths(images, args.batch, cutout), count, args.rounds, args.clock)
        for name, number, target in (("PIL", "8", TARGET), ("JPEG", "-", None)):
            ratios = [ours / other for ours, other in zip(seconds["ours"], seconds[name])]
            yield Row(f"{number} ours / {name}{text}", ratios, target=target)
        for name, took in seconds.items():
            yield Row(f"- images, {name}{text}", [args.batch * count / s for s in took], "images/s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print. Returns 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="number of images in memory")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=40, help="per data path and round, from the start of an epoch")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: process time, for a busy machine")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])  # so that no other core makes the next batch
    where = machine("cpu") | {"threads": 1, "clock": args.clock, "batch": args.batch, "image_size": SIDE}
    try:
        if not 1 <= args.batch <= args.images or min(args.batches, args.rounds) < 1:
            raise InputError("--batches and --rounds must be 1 or more, --batch from 1 to the number of --images")
        found = list(rows(args))
        write_rows(args.out, found, where | {"images": args.images})
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    Console(width=80, highlight=False).print(
        to_table(found, f"batches of {args.batch} images, ours and DataLoader's from PIL and JPEG, {args.clock}")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
