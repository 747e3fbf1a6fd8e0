"""The command ``txserf``."""
