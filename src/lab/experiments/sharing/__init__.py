"""Chapter 3: soft parameter sharing."""
