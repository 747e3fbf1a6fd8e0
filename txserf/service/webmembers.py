"""``/members``, ``/sd`` and ``/coordinates``: the members of the live view, filtered."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeGuard

from twisted.web import http
from twisted.web.server import Request

from txserf.errors import SerfError, reason_text
from txserf.model import Coordinate, Member, MemberStatus
from txserf.service.answers import Refusal, WebReply, only, parameters
from txserf.service.live import Live
from txserf.service.members import full, port_number, target

_FILTERS = ("status", "name")
_TAG = "tag."
_STATUSES = tuple(map(str, MemberStatus))

# Answers that are kept until a member changes. Each is as large as its list: some 300 bytes a member.
_MOST_KEPT = 16

_Values = Mapping[str, tuple[str, ...]]


class MemberPages:
    """Answers with members."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._version = -1
        self._kept: dict[Any, WebReply] = {}  # by path and parameters, for one version

    def members(self, request: Request) -> WebReply:
        """Answer with the members that match, sorted by name."""
        values = parameters(request, _FILTERS, _TAG)
        return self._answer(request.path, values, lambda: list(map(full, self._select(values, ()))))

    def service_discovery(self, request: Request) -> WebReply:
        """Answer with the members that match as targets for Prometheus."""
        values = parameters(request, ("port", "port_tag", *_FILTERS), _TAG)
        port_of = _port_reader(values)

        def groups() -> list[dict[str, Any]]:
            found = [target(member, port_of(member)) for member in self._select(values, ("alive",))]
            return [group for group in found if group is not None]

        return self._answer(request.path, values, groups)

    async def coordinates(self, request: Request) -> WebReply:
        """Answer with the network coordinates of the members that match."""
        values = parameters(request, _FILTERS, _TAG)
        names = [member.name for member in self._select(values, ("alive",))]
        try:
            found = await self._live.view._coordinates.of(names)
        except SerfError as error:
            raise Refusal(http.BAD_GATEWAY, f"the coordinates can't be read: {reason_text(error)}") from None
        return WebReply.kept_json([_place(name, place) for name, place in found.items() if _is_known(place)])

    def _answer(self, path: bytes, values: _Values, make: Callable[[], object]) -> WebReply:
        """Return the answer for these parameters; it is made once for each change of the members."""
        if self._version != self._live.version or len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
            self._version = self._live.version
        key = (path, *sorted(values.items()))
        if key not in self._kept:
            self._kept[key] = WebReply.kept_json(make())
        return self._kept[key]

    def _select(self, values: _Values, statuses: Collection[str]) -> list[Member]:
        """
        Return the members that match; a parameter that is given several times matches any of its values.

        :param statuses: those to select where no ``status`` is given; empty for any.
        """
        for status in values.get("status", ()):
            if status not in _STATUSES:
                raise Refusal(http.BAD_REQUEST, f"status is one of {', '.join(_STATUSES)}, not {status!r}")
        if not self._live.is_read:
            why = self._live.unready or "they are being read"
            raise Refusal(http.SERVICE_UNAVAILABLE, f"the members are not known yet: {why}", retry_after="1")
        tags = {
            name.removeprefix(_TAG): frozenset(wanted).__contains__
            for name, wanted in values.items()
            if name.startswith(_TAG)
        }
        members = self._live.view.select(status=None, tags=tags)
        statuses = values.get("status", statuses)
        names = values.get("name")
        return [
            member
            for member in members
            if (not statuses or member.status in statuses) and (names is None or member.name in names)
        ]


def _is_known(place: Coordinate | None) -> TypeGuard[Coordinate]:
    # A broken agent may have numbers that JSON can't hold.
    return place is not None and all(
        map(math.isfinite, (*place.vec, place.height, place.adjustment, place.error))
    )


def _place(name: str, place: Coordinate) -> dict[str, Any]:
    return {
        "name": name,
        "vec": place.vec,
        "height": place.height,
        "adjustment": place.adjustment,
        "error": place.error,
    }


def _port_reader(values: _Values) -> Callable[[Member], int | None]:
    """Return the function that tells the port of a member, None where it has none."""
    port, tag = only(values, "port"), only(values, "port_tag")
    if (port is None) is (tag is None):
        raise Refusal(http.BAD_REQUEST, "port=NUMBER or port_tag=TAG is needed: where do the members serve?")
    if port is not None:
        number = port_number(port)
        if number is None:
            raise Refusal(http.BAD_REQUEST, f"port is a number from 1 to 65535, not {port!r}")
        return lambda member: number
    return lambda member: port_number(member.tags.get(tag or "", ""))
