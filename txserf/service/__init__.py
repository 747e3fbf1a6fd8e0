"""The service that ``twistd txserf`` runs."""

from txserf.service.making import makeService as makeService
from txserf.service.options import Options as Options
