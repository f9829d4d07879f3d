"""Versions and platform: what a result depends on besides its settings."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import torch

__all__ = ["versions"]


def versions() -> dict[str, str | int | None]:
    """Versions of msgdas, Python, torch and torchvision, the platform, the CPU count and torch's thread count."""
    return {
        "msgdas": _version("msgdas"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
