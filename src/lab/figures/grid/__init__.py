"""The grid figure (Chapter 6): a network's error over learning rate and epsilon."""
