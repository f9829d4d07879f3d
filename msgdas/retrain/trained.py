"""The trained network of a run: save, load, predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor, nn

from msgdas.data import decode, normalise
from msgdas.data.form import Form
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.runs import write_atomic, write_json
from msgdas.spaces import find_space

__all__ = ["TrainedNetwork", "load", "save_trained"]

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


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

    Args:
        path: run folder of a search (its ``train`` folder is used) or of a training.

    Raises:
        InputError: nothing was trained there yet, or a file is damaged.
    """
    folder = next((f for f in (Path(path), Path(path) / "train") if (f / WEIGHTS).exists()), None)
    if folder is None:
        raise InputError(f"{str(path)!r} holds no trained network: run 'msgdas train {path}' first")
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        genotype = Genotype.from_dict(description["genotype"])
        space = find_space(genotype.space)
        network = space.network(genotype, classes=len(description["classes"]), **description["size"])
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the trained network in {str(folder)!r} is damaged ({reason}): train it again") from None
    return TrainedNetwork(network.eval(), description)
