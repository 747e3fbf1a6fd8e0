"""``python -m txserf``: the command ``txserf``."""

from __future__ import annotations

import sys

from txserf.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
