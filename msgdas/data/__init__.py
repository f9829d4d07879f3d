"""Data sets by name and image folders, in memory or read from files; augmented batches."""

from msgdas.data.augment import Augment, augment, normalise
from msgdas.data.batches import Batches
from msgdas.data.decode import decode
from msgdas.data.fingerprint import changes, fingerprint
from msgdas.data.images import AnyImages, DataSet, ImageFiles, Images
from msgdas.data.load import load_data

__all__ = [
    "AnyImages",
    "Augment",
    "Batches",
    "DataSet",
    "ImageFiles",
    "Images",
    "augment",
    "changes",
    "decode",
    "fingerprint",
    "load_data",
    "normalise",
]
