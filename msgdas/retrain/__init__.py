"""Train a derived network from scratch and test it once."""

from msgdas.retrain.recipe import RECIPES, Recipe
from msgdas.retrain.train import retrain
from msgdas.retrain.trained import TrainedNetwork, load

__all__ = ["RECIPES", "Recipe", "TrainedNetwork", "load", "retrain"]
