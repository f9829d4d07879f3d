"""The trained network of a run: save, load, predict."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import safetensors
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors.torch import load as read
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from msgdas.data import decode, normalise
from msgdas.data.form import Form
from msgdas.errors import InputError, shown, wrong
from msgdas.genotype import Genotype
from msgdas.runs import parse_json, read_json, write_atomic, write_json
from msgdas.spaces import find_space

__all__ = ["TrainedNetwork", "load", "save_trained"]

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
DAMAGE = (OSError, LookupError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError)


class TrainedNetwork(nn.Module):
    """A trained network with everything it needs to classify images.

    Attributes:
        network: the plain module: ``(B, C, S, S)`` normalised float images → ``(B, classes)`` logits.
        description: genotype, sizes, classes, mean and std, as in ``model.json``.
    """

    def __init__(self, network: nn.Module, description: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.description = network, description
        self.classes: tuple[str, ...] = tuple(description["classes"])

    @property
    def form(self) -> Form:
        """What images are made into; earlier versions cropped them to squares."""
        size = self.description["size"]
        given = self.description.get("form")
        return Form.of(given) if given else Form.square(size["in_channels"], size["image_size"])

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, C, S, S)`` uint8 pixels → ``(B, classes)`` logits."""
        mean, std = (torch.tensor(self.description[name], device=pixels.device) for name in ("mean", "std"))
        return self.network(normalise(pixels, mean, std))

    @torch.no_grad()
    def predict(self, image: Image.Image | str | Path) -> dict[str, float]:
        """Probability of each class for one image of any size and mode, most probable first.

        Raises:
            InputError: the file is not a readable image.
        """
        pixels = decode(image, self.form)[None]
        device = next(self.network.parameters()).device
        probabilities = self(pixels.to(device)).softmax(-1)[0].tolist()
        pairs = zip(self.classes, probabilities, strict=True)
        return dict(sorted(pairs, key=lambda pair: -pair[1]))


def save_trained(folder: Path, network: nn.Module, description: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``model.json`` into ``folder``, each atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_atomic(folder / WEIGHTS, save(tensors))
    write_json(folder / DESCRIPTION, description)


def load(path: str | Path) -> TrainedNetwork:
    """Load the trained network of a run folder, in evaluation mode on the CPU.

    ``model.json`` is checked by itself and against the tensors in ``model.safetensors`` before memory is taken.

    Args:
        path: run folder of a search (its ``train`` folder is used) or of a training.

    Raises:
        InputError: nothing was trained there yet, or a file is damaged.
    """
    folder = next((f for f in (Path(path), Path(path) / "train") if os.path.isfile(f / WEIGHTS)), None)
    if folder is None:
        raise InputError(f"{shown(str(path))} holds no trained network: run {shown(f'msgdas train {path}')} first")
    try:
        description = _read_description(folder / DESCRIPTION)
        weights = (folder / WEIGHTS).read_bytes()  # safetensors takes no path that is not UTF-8
        _refuse_other_tensors(weights, description)
        network = _network(description)
        network.load_state_dict(read(weights))
    except (*DAMAGE, safetensors.SafetensorError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"the trained network in {shown(str(folder))} is damaged ({reason}): train it again") from None
    return TrainedNetwork(network.eval(), description)


# ------------------------------------------------------------------------- model.json


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Size(_Form, extra="forbid"):
    """What the space's network takes."""

    channels: int = Field(ge=1, le=100_000)
    cells: int = Field(ge=1)
    in_channels: int = Field(ge=1, le=1024)
    image_size: int = Field(ge=1, le=16_384)
    form: str | None = None


class _Description(_Form, extra="allow"):
    """``model.json``. Versions add to it, so more may be there."""

    genotype: dict[str, Any]
    size: _Size
    classes: list[str] = Field(min_length=1)
    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]
    form: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _agree(self) -> _Description:
        counts = [len(self.mean), len(self.std)]
        if counts != [self.size.in_channels] * 2:
            raise ValueError(f"mean and std have {counts} values for {self.size.in_channels} channels of an image")
        if self.form is not None:
            form = Form.of(self.form)
            if form.channels != self.size.in_channels or min(form.height, form.width) != self.size.image_size:
                raise ValueError(f"form {form} is not that of images of {self.size.image_size} pixels")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class is there twice")
        return self


def _read_description(file: Path) -> dict[str, Any]:
    try:
        return _Description.model_validate(read_json(file)).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise ValueError(f"{file.name}: {wrong(error)}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{file.name}: {getattr(error, 'strerror', None) or error}") from None


def _network(description: dict[str, Any]) -> nn.Module:
    genotype = Genotype.from_dict(description["genotype"])
    space = find_space(genotype.space)
    size = {name: value for name, value in description["size"].items() if value is not None}
    return space.network(genotype, classes=len(description["classes"]), **size)


def _refuse_other_tensors(weights: bytes, description: dict[str, Any]) -> None:
    """Raise if ``model.safetensors`` has not just the tensors of the network. Reads its header only.

    Raises:
        ValueError: it has others.
    """
    length = int.from_bytes(weights[:8], "little")
    header = parse_json(weights[8 : 8 + length].decode()) if length <= len(weights) else None
    if not isinstance(header, dict):
        raise ValueError(f"{WEIGHTS} has no header")
    shapes = {name: list(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    with _limited_to(len(shapes)), torch.device("meta"):
        wanted = {name: list(tensor.shape) for name, tensor in _network(description).state_dict().items()}
    if wanted != shapes:
        name = min(name for name in {*wanted, *shapes} if wanted.get(name) != shapes.get(name))
        found, needed = shapes.get(name, "missing"), wanted.get(name, "none")
        raise ValueError(f"{WEIGHTS}: tensor {shown(name)} is {found}, and {DESCRIPTION} means {needed}")


@contextmanager
def _limited_to(tensors: int) -> Iterator[None]:
    """Inside, a network of far more parts than ``tensors`` is given up while it is built: sizes may be damaged."""
    left = 2000 + 20 * tensors

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"{DESCRIPTION} means a network of far more than the {tensors} tensors in {WEIGHTS}")

    hooks = [register_module_module_registration_hook(count), register_module_parameter_registration_hook(count)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
