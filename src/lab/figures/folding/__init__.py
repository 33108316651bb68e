"""The folding figure (Chapter 3): similarity, fold, loop."""
