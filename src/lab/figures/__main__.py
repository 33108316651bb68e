"""``python -m lab.figures > book/static/palette.css``: the palette's style sheet."""

from . import palette_css

print(palette_css(), end="")
