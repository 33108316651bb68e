"""The precision-map figure (Chapter 5): bits of every weight, down to one."""
