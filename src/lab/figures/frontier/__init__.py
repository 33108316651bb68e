"""The frontier figure: accuracy against size, a point a recorded run."""
