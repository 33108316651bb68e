"""Chapter 8: networks of another library, on data that no other chapter uses."""
