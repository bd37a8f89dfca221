"""Named experiments: one typed config each, with the published number it answers to."""

from quickstudy.recipes.registry import RECIPES, Measure, Recipe, recipe

__all__ = ["RECIPES", "Measure", "Recipe", "recipe"]
