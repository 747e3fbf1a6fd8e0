"""
Make ``demo.svg``, the picture of ``txserf demo`` in a terminal: ``python docs/images/demo.py``.

It runs the demo in a pseudo-terminal for some seconds, and draws what it has shown.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 84, 40
SECONDS = 16.0

# A picture in a page may load nothing, so that the fonts which rich names would never come.
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def shown() -> str:
    """Run the demo, end it by Ctrl-C, and return what it wrote to its terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environ["TERM"] = "xterm-256color"
    argv = [sys.executable, "-m", "txserf", "demo"]
    demo = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    time.sleep(SECONDS)
    demo.send_signal(signal.SIGINT)
    demo.wait()
    found = b""
    try:
        while chunk := os.read(ours, 65536):
            found += chunk
    except OSError:  # the end of a pseudo-terminal
        pass
    os.close(ours)
    return found.decode().replace("\r\n", "\n").replace("^C", "").rstrip()


def main() -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("$ txserf demo\n" + shown()))
    picture = _FONTS.sub("", console.export_svg(title="txserf demo"))
    Path(__file__).with_suffix(".svg").write_text(picture)


if __name__ == "__main__":
    main()
