"""Images in memory: data sets by name, image folders, augmentation in batches."""

from msgdas.data.augment import Augment, augment, normalise
from msgdas.data.batches import Batches
from msgdas.data.decode import decode
from msgdas.data.images import DataSet, Images
from msgdas.data.load import load_data

__all__ = ["Augment", "Batches", "DataSet", "Images", "augment", "decode", "load_data", "normalise"]
