"""The annealing figure (Chapter 4): how a soft mask becomes hard."""
