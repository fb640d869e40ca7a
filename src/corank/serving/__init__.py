"""A roll-out behind HTTP."""
