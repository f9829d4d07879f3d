"""Training a found network from scratch, and testing it once."""

from msgdas.retrain.train import Recipe, retrain
from msgdas.retrain.trained import TrainedNetwork, load

__all__ = ["Recipe", "TrainedNetwork", "load", "retrain"]
