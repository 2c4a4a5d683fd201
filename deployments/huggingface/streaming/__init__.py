"""Weights that do not fit, brought to the model ahead of its steps, in every step."""
