"""Propose the first search and training for a folder of images."""

from __future__ import annotations

import math
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Proposal", "propose", "training"]

STEP, LEAST_SIDE = 8, 16  # pixels of a rectangle's sides
SIDES = (32, 64, 128, 224)  # image sizes that are proposed: a network's cost grows little from one to the next
LARGEST_ON_CPU = 128  # a larger size doubles the time of a step
LARGE_SPACE = 2000  # training images from which on the larger space is proposed: a rule of thumb
LEAST_STEPS, LEAST_EPOCHS = 1500, 20  # of a search
BATCH, LEAST_BATCH, STEPS_OF_EPOCH = 64, 8, 8
BALANCE = 3.0  # ratio of the largest and smallest class above which classes are weighted


@dataclass(frozen=True)
class Proposal:
    """What to run.

    Attributes:
        commands: for a POSIX shell.
        reasons: option with its value → one line that says why.
        memory_needed, memory_free: bytes of all images as pixels, and of free memory.
        in_memory: whether the images take at most half of the free memory; else they are read from disk every epoch.
    """

    commands: tuple[str, ...]
    reasons: dict[str, str]
    memory_needed: int
    memory_free: int
    in_memory: bool


def propose(
    folder: str,
    *,
    train: int,
    images: int,
    channels: int,
    median_side: int,
    shape: tuple[int, int] | None = None,
    labels: str | None = None,
    group: str | None = None,
    imbalance: float | None,
    memory_free: int,
    gpu: bool,
) -> Proposal:
    """Propose the first search and training for a folder.

    Args:
        train, images: number of images in the training part, and in all parts.
        median_side: median of the shorter sides, in pixels.
        shape: median width and height of images that are too long to be made squares.
        labels, group: options that were given.
        imbalance: ratio of training images of the largest and the smallest class, if that has any.
        memory_free: in bytes.
        gpu: whether the machine has one.
    """
    half = train // 2
    side, why_side = _side(median_side, gpu)
    height, width = (side, side) if shape is None else _rectangle(shape, side)
    if shape is not None:
        why_side = f"the median image is {shape[1]:,} × {shape[0]:,}, height by width, too long for a square"
    space, why_space = _space(train, gpu)
    batch, why_batch = _batch(half)
    steps = max(1, half // batch)
    epochs = max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps))
    options: dict[tuple[str, ...], str] = {
        ("--space", space): why_space,
        ("--image-size", str(side) if height == width else f"{height}x{width}"): why_side,
        ("--epochs", str(epochs)): f"of {steps:,} steps: at least {LEAST_EPOCHS}, and {LEAST_STEPS:,} steps in all",
        ("--batch-size", str(batch)): why_batch,
    }
    weights = ("--class-weights", "balanced") if imbalance and imbalance > BALANCE else ()
    if weights:
        options[weights] = f"the largest class is {imbalance:.1f} × the smallest"
    data = folder if os.sep in folder else f"./{folder}"  # 'digits' alone is a data set
    out = f"runs/{Path(folder).resolve().name}"
    given = [word for name, value in (("--labels", labels), ("--group", group)) if value for word in (name, value)]
    search = [
        "msgdas",
        "search",
        "--data",
        data,
        *given,
        *(word for option in options for word in option),
        "--out",
        out,
    ]
    smaller = _smaller(space, side, gpu)
    if smaller:
        options[smaller] = "of the training: the default, 5 a stage, takes over four times as long"
    needed = images * channels * height * width
    return Proposal(
        commands=(shlex.join(search), training(out, space, side, gpu=gpu)),
        reasons={" ".join(option): why for option, why in options.items()},
        memory_needed=needed,
        memory_free=memory_free,
        in_memory=needed <= memory_free // 2,
    )


def training(out: str, space: str, side: int, *, gpu: bool) -> str:
    """The command that trains what the search in ``out`` has found, for a POSIX shell."""
    return shlex.join(["msgdas", "train", out, *_smaller(space, side, gpu)])


def _smaller(space: str, side: int, gpu: bool) -> tuple[str, ...]:
    """The option for a smaller network, where the default one takes a CPU hours."""
    return ("--cells", "1") if space == "nasbench201" and side >= SIDES[0] and not gpu else ()


def _side(median_side: int, gpu: bool) -> tuple[int, str]:
    fitting = min(SIDES, key=lambda s: max(s / median_side, median_side / s))
    side = fitting if gpu else min(fitting, LARGEST_ON_CPU)
    why = f"the shorter sides' median is {median_side:,}"
    return side, f"{why}; a larger one doubles a CPU's time" if side < fitting else why


def _rectangle(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width of the same aspect ratio with about as many pixels as a square of the side, or the images' own
    if they are smaller. Sides are multiples of 8."""
    width, height = shape
    scale = min(1.0, side / math.sqrt(width * height))
    tall, wide = (max(LEAST_SIDE, STEP * round(scale * length / STEP)) for length in (height, width))
    return tall, wide


def _space(train: int, gpu: bool) -> tuple[str, str]:
    """By rules of thumb."""
    if train < LARGE_SPACE:
        return "nasbench201", f"the smaller space, for under {LARGE_SPACE:,} training images"
    if not gpu:
        return "nasbench201", "a step in the larger space, darts, takes a CPU 20 times as long"
    return "darts", f"the larger space, for {LARGE_SPACE:,} training images or more"


def _batch(half: int) -> tuple[int, str]:
    batch = BATCH
    while batch > LEAST_BATCH and half // batch < STEPS_OF_EPOCH:
        batch //= 2
    if batch == BATCH:
        return batch, "the default"
    return batch, f"few images: more steps an epoch than with {BATCH}"
