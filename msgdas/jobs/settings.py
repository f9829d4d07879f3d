"""Settings: every option of the commands, defined once.

A field of `SearchSettings`, `TrainSettings` or `CompareSettings` is an option: its name, type, bounds, default, help.
The command line, the YAML files of ``--config``, the texts of ``--methods``, ``config.json`` and the table in the
documentation are made from it. To add one, add a field here, use it, and test its use.

A default of None means that the value depends on the data, the space or the method; the help says how.
"""

from __future__ import annotations

import inspect

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from msgdas.data.form import RESIZE, parse_size
from msgdas.data.mirror import MIRROR
from msgdas.data.named import NAMES
from msgdas.errors import InputError
from msgdas.jobs.option import Group, Settings, option, options
from msgdas.methods import GRADIENTS, METHODS, PRESETS
from msgdas.retrain.recipe import CLASS_WEIGHTS, RECIPES
from msgdas.search.precision import PRECISIONS
from msgdas.search.supernet_training import RECOMPUTE
from msgdas.spaces.darts import FORMS

__all__ = [
    "DATA_HELP",
    "REQUIRED",
    "CompareSettings",
    "DataSettings",
    "Machine",
    "SearchSettings",
    "TrainSettings",
    "method_options",
    "own_options",
]

DATA_HELP = f"{', '.join(NAMES)}, or a folder, CSV, zip, tar or npz file of images, or hf:NAME"
REQUIRED = "required"
ASSIGNMENTS = ("rank", "shuffle")
MOST_CHANNELS, MOST_CELLS = 100_000, 1000
FASTEST = 10  # learning rate
HEAVIEST = 1000  # of a loss beside the first
MOST = 1_000_000  # of whatever is counted: no sensible setting comes near, and a typing error is refused
LARGEST_SEED = 2**53 - 1  # JSON holds it exactly

# ------------------------------------------------------------- what several commands have


class Source(Settings):
    """The images of a search, a training or a comparison."""

    data: str | None = option(None, DATA_HELP, Group.DATA, unset=REQUIRED)
    labels: str | None = option(None, "CSV file with the labels of the images in the folder --data", Group.DATA)
    group: str | None = option(
        None, "what keeps images in one part: folder (the one below the class), or a regular expression of the path",
        Group.DATA,
    )  # fmt: skip
    data_dir: str | None = option(
        None, "folder with the official files of a named data set", Group.DATA, unset="~/.cache/msgdas"
    )
    image_size: str | None = option(
        None, "side of the images in pixels, or HEIGHTxWIDTH", Group.DATA, unset="the images' own up to 96, else 64"
    )
    drop_duplicates: bool = option(
        False, "leave out all but one of images that are the same or nearly so", Group.DATA, bare=True
    )
    resize: str = option(
        "auto", "how images of other shapes are brought to that size; auto: by their aspect ratios", Group.DATA,
        choices=RESIZE,
    )  # fmt: skip

    @field_validator("image_size")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        try:
            return value if value is None else "x".join(map(str, dict.fromkeys(parse_size(value))))
        except InputError as error:
            raise PydanticCustomError("format", "{way}", {"way": str(error).partition(": ")[2]}) from None


class DataSettings(Source):
    """All about the images. A training takes it over from its search."""

    download: bool = option(False, "download the official files that are missing", Group.DATA)
    on_bad_image: str = option(
        "skip", "what to do with an image that cannot be read", Group.DATA, choices=("skip", "stop")
    )
    max_memory: float | None = option(
        None, "GiB for images in memory; if they need more, they are read from disk in every epoch", Group.DATA,
        unset="half of the free memory", ge=0, le=MOST,
    )  # fmt: skip
    workers: int | None = option(
        None, "processes that read images from disk", Group.DATA, unset="one per CPU, at most 8", ge=0, le=1024
    )
    mirror: str = option(
        "auto", "mirror training images at random; auto: unless left and right mean something in them", Group.DATA,
        choices=MIRROR,
    )  # fmt: skip
    class_weights: str = option("none", "class weights in the loss", Group.DATA, choices=CLASS_WEIGHTS)


class Kernels(Settings):
    """Where and how steps are computed."""

    device: str = option("auto", "auto, cpu, cuda, cuda:1, …", Group.MACHINE)
    native: bool = option(
        False, "faster steps on a CPU by compiled kernels; needs a C compiler", Group.MACHINE, bare=True
    )


class Machine(Kernels):
    """What one process does its work with."""

    seed: int = option(0, "random seed", Group.MACHINE, ge=0, le=LARGEST_SEED)
    threads: int | None = option(None, "CPU threads", Group.MACHINE, unset="all", ge=1, le=4096)


class Extent(Settings):
    """Length of a search and size of its super-net."""

    epochs: int | None = option(
        None, "epochs of the whole search", Group.SIZE, unset="20; more if there are few images", ge=1, le=MOST
    )
    warmup: int | None = option(
        None, "epochs at the start that train weights only", Group.SIZE, unset="60 % of the epochs", ge=0, le=MOST
    )
    batch_size: int = option(64, "images per batch", Group.SIZE, ge=1, le=MOST)
    images: int | None = option(
        None, "images in each half of the training part", Group.SIZE, unset="all", ge=1, le=10**9
    )
    samples: int | None = option(
        None, "draw so many sub-graphs at the end, rank them on validation images, keep the best", Group.SIZE,
        unset="keep the most likely one", ge=1, le=MOST,
    )  # fmt: skip
    channels: int | None = option(
        None, "channels at the super-net's start", Group.SIZE, unset="the space's", ge=1, le=MOST_CHANNELS
    )
    cells: int | None = option(
        None, "cells of the super-net, per stage or in total, as the space counts them", Group.SIZE,
        unset="the space's", aliases=("layers",), ge=1, le=MOST_CELLS,
    )  # fmt: skip


# -------------------------------------------------------------------------- a search


class SearchSettings(DataSettings, Extent, Machine):
    """Options of ``msgdas search``.

    Those of `Group.METHOD` are arguments of the functions in `msgdas.methods`; their signatures say which method has
    which.
    """

    space: str = option("nasbench201", "search space: see msgdas spaces", Group.WHAT)
    method: str = option("msgdas", "search method: see msgdas methods", Group.WHAT)

    preset: str | None = option(
        None, "settings of msgdas; the options below override it", Group.METHOD, unset="default", choices=tuple(PRESETS)
    )
    k: int | None = option(None, "sub-graphs per step (K)", Group.METHOD, unset="msgdas 3, rome 7", ge=1, le=1000)
    gradient: str | None = option(
        None, "how the loss reaches the alphas", Group.METHOD,
        unset="msgdas compare, with k=1 probed; gdas and preset paper picked", choices=tuple(GRADIENTS),
    )  # fmt: skip
    assignment: str | None = option(
        None, "how picks are assigned to sub-graphs", Group.METHOD, unset="shuffle; preset paper rank",
        choices=ASSIGNMENTS,
    )  # fmt: skip
    weight_assignment: str | None = option(
        None, "the same in weight steps", Group.METHOD, unset="as --assignment", choices=ASSIGNMENTS
    )
    normalise: str | None = option(
        None, "candidates over which gates are normalised", Group.METHOD, unset="remaining",
        choices=("remaining", "picks", "all"),
    )  # fmt: skip
    guidance: float | None = option(
        None, "weight of the distillation from the super-net", Group.METHOD, unset="0, off; preset paper 1",
        ge=0, le=HEAVIEST,
    )  # fmt: skip
    temperature: float | None = option(
        None, "temperature of the distillation", Group.METHOD, unset="1", ge=1e-3, le=1000
    )
    supernet_weight: float | None = option(
        None, "weight of the super-net's own loss on the labels", Group.METHOD, unset="0, off; preset paper 1",
        ge=0, le=HEAVIEST,
    )  # fmt: skip
    supernet_recompute: str | None = option(
        None, "what that pass of the super-net recomputes in backward to save memory", Group.METHOD, unset="choice",
        choices=RECOMPUTE,
    )  # fmt: skip

    drop: float | None = option(
        None, "probability p of DropBlock-Identity at the start; it falls to 0", Group.EVERY_METHOD,
        unset="msgdas 0.5, others 0", ge=0, le=0.9,
    )  # fmt: skip
    drop_in_alpha_steps: bool | None = option(
        None, "apply DropBlock-Identity in alpha steps, too", Group.EVERY_METHOD, unset="msgdas true, others false"
    )
    alpha_lr: float | None = option(
        None,
        "learning rate of the alphas; 0 keeps them as they are",
        Group.EVERY_METHOD,
        unset="the method's",
        ge=0,
        le=FASTEST,
    )
    weight_lr: float | None = option(
        None, "learning rate of the weights at the start", Group.EVERY_METHOD, unset="0.05", gt=0, le=FASTEST
    )
    cost_weight: float | None = option(
        None, "weight of the expected multiply-adds in the loss of the alphas", Group.EVERY_METHOD, unset="0, off",
        ge=0, le=HEAVIEST,
    )  # fmt: skip
    prior: str | None = option(
        None, "run folder of an earlier search: the alphas start at its result", Group.EVERY_METHOD
    )
    trust: float = option(
        0.6, "share of the prior in the first probabilities; the rest is uniform", Group.EVERY_METHOD, ge=0, lt=1
    )

    micro_batches: int | None = option(
        None, "split each batch into so many parts, run one after another: less memory", Group.EXECUTION, unset="1",
        ge=1, le=MOST,
    )  # fmt: skip
    precision: str | None = option(
        None, "bfloat16 and float16 save memory on a GPU", Group.EXECUTION, unset="float32",
        choices=tuple(PRECISIONS),
    )  # fmt: skip
    recompute: bool | None = option(
        None, "recompute operations in the backward pass: less memory, more time", Group.EXECUTION, unset="false",
        bare=True,
    )  # fmt: skip


def own_options(method: str) -> list[str]:
    """Names of the settings that are arguments of this method's function.

    Raises:
        InputError: the method is not known.
    """
    if method not in METHODS:
        raise InputError(f"method {method!r} is not known: use {', '.join(METHODS)}")
    taken = inspect.signature(METHODS[method]).parameters
    return [one.name for one in options(SearchSettings) if one.group is Group.METHOD and one.name in taken]


def method_options(method: str) -> list[str]:
    """Names of the settings that may differ from method to method in a comparison: what ``--methods`` takes."""
    own = own_options(method)
    shared = (Group.EVERY_METHOD, Group.EXECUTION, Group.SIZE)
    return [one.name for one in options(SearchSettings) if one.group in shared or one.name in own]


# -------------------------------------------------------------------------- a training


def _by_recipe(name: str) -> str:
    return ", ".join(f"{recipe} {getattr(numbers, name):g}" for recipe, numbers in RECIPES.items())


class TrainSettings(DataSettings, Machine):
    """Options of ``msgdas train``. Numbers of the recipe that are None are the recipe's own."""

    recipe: str = option("short", "sets the numbers below that are not given", Group.RECIPE, choices=tuple(RECIPES))
    epochs: int | None = option(None, "epochs", Group.RECIPE, unset=_by_recipe("epochs"), ge=1, le=MOST)
    batch_size: int | None = option(
        None, "images per batch", Group.RECIPE, unset=_by_recipe("batch_size"), ge=1, le=MOST
    )
    lr: float | None = option(None, "peak learning rate", Group.RECIPE, unset=_by_recipe("lr"), gt=0, le=FASTEST)
    weight_decay: float | None = option(
        None, "weight decay", Group.RECIPE, unset=_by_recipe("weight_decay"), ge=0, le=FASTEST
    )
    label_smoothing: float | None = option(
        None, "label smoothing", Group.RECIPE, unset=_by_recipe("label_smoothing"), ge=0, le=1
    )
    cutout: float | None = option(
        None, "side of the cutout as a fraction of the image's", Group.RECIPE, unset=_by_recipe("cutout"), ge=0, le=1
    )
    auxiliary: float | None = option(
        None, "weight of the auxiliary head's loss", Group.RECIPE, unset=_by_recipe("auxiliary"), ge=0, le=HEAVIEST
    )
    drop_path: float | None = option(
        None, "probability of dropping a path in the last epoch", Group.RECIPE, unset=_by_recipe("drop_path"),
        ge=0, lt=1,
    )  # fmt: skip
    channels: int | None = option(
        None, "channels at the network's start", Group.SIZE, unset="the space's", ge=1, le=MOST_CHANNELS
    )
    cells: int | None = option(
        None, "cells of the network, per stage or in total, as the space counts them", Group.SIZE,
        unset="the space's", aliases=("layers",), ge=1, le=MOST_CELLS,
    )  # fmt: skip
    network: str | None = option(
        None, "form of a network of the space darts", Group.SIZE, unset="by the image size", choices=FORMS
    )
    compile: bool = option(
        False, "use torch.compile: minutes before the first step, then faster steps on some machines", Group.MACHINE
    )


# -------------------------------------------------------------------------- a comparison


class CompareSettings(Source, Extent, Kernels):
    """Options of ``msgdas bench SPACE``. What it shares with `SearchSettings` goes to every search."""

    space: str | None = option(None, "search space: see msgdas spaces", Group.COMPARED)
    methods: str = option("msgdas,gdas,darts,random", "METHOD[:option=value…],…", Group.COMPARED)
    seeds: str = option("0-2", "3, 0-3 or 0,2,5", Group.COMPARED)
    table: str | None = option(
        None, "file or folder with the accuracy of each genotype, trained by itself", Group.COMPARED, unset="none"
    )
    column: str | None = option(
        None, "the table's column of accuracies; of NATS-Bench files, the data set", Group.COMPARED,
        unset="the first that is known",
    )  # fmt: skip
    reference: str | None = option(None, "genotype to compare with; needs --table", Group.COMPARED)
    jobs: int = option(1, "searches at a time", Group.MACHINE, ge=1, le=1024)
    threads: int = option(1, "CPU threads of each search", Group.MACHINE, ge=1, le=4096)
