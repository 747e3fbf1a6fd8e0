"""The service that ``twistd txserf`` runs."""

from txserf.service.making import Options as Options
from txserf.service.making import makeService as makeService
