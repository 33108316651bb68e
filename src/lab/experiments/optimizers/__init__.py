"""Chapter 6: optimizers, and what tuning them costs."""
