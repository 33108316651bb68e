"""Chapter 7: sharing, masks and bits together."""
