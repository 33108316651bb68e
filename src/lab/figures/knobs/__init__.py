"""Knobs at the end of a chapter (3 to 6): with a kernel they train, without one they find the nearest recorded run."""
