"""The cluster's members as applications want them. The public names are in `txserf`."""
