"""Chapter 4: sparsification."""
