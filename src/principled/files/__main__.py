"""``python -m principled.files FILE ...``: what each file says of itself, and which tensor spends what on what."""

from __future__ import annotations

import sys

from . import meta, sizes


def main(paths: list[str]) -> int:
    """Print each file's table; 1 if one of them cannot be read."""
    if not paths:
        print("usage: python -m principled.files FILE ...", file=sys.stderr)
        return 2
    for path in paths:
        try:
            said, spent = meta(path), sizes(path)
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"{path}: {len(spent.rows)} tensors" + "".join(f"; {key} {value}" for key, value in said.items()))
        print(spent)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
