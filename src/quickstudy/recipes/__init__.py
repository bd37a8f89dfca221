"""Named experiments: one typed config each, with the published number it answers to."""

from quickstudy.recipes.recipe import Experiment, Measure, Recipe, Setting
from quickstudy.recipes.registry import RECIPES, recipe

__all__ = ["RECIPES", "Experiment", "Measure", "Recipe", "Setting", "recipe"]
