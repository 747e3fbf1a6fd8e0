"""The fluent face: `Client`, its requests and their responses."""

from txserf.client.client import Client as Client
