"""Whether a model fits a machine, told before it is loaded."""
