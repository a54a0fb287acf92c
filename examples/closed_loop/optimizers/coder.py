"""An optimizer as a command: has the code in the package rewritten by the code evolver's own model.

It runs in a copy of the project, so the model is imported from there.
"""

from __future__ import annotations

import re
import sys


def main() -> None:
    """Read a package, print a module."""
    sys.path.insert(0, ".")
    from src.local_model import generate

    found = re.search(r"^```+python\n(.*?)^```+", sys.stdin.read(), re.DOTALL | re.MULTILINE)
    if found is None:
        sys.exit("The package holds no code.")
    print(generate("coder", f"Improve this function.\n{found[1]}"))


if __name__ == "__main__":
    main()
