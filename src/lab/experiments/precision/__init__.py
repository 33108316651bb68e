"""Chapter 5: a precision for every weight."""
