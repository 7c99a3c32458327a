"""Which master of a Redis Cluster has which slots, as CLUSTER SLOTS tells it. Pure.

A slot is the CRC16 (XMODEM) of a name, modulo 16384. Our names hold no braces (`keys.py` escapes them), so all of a
name counts; the notes alone have a tag in braces, so that each master can be given one.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from cachelib.errors import ProtocolError
from cachelib.model import Name

SLOTS = 16384


def slot_of(name: Name) -> int:
    """The slot of a name without braces."""
    return crc_hqx(name, 0) % SLOTS


@lru_cache(maxsize=1024)
def tag_of(slot: int) -> bytes:
    """A text in braces that a name of this slot may end with."""
    number = 0
    while slot_of(b"%d" % number) != slot:
        number += 1
    return b"{%d}" % number


class SlotMap:
    """The place (`host:port`) of each slot's master; "" where nobody has it."""

    def __init__(self, owners: Sequence[str], replicas: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        self._owners = list(owners)
        self.replicas = replicas
        """The places of each master's replicas, by the master's."""

    def owner(self, slot: int) -> str:
        """The place of the slot's master."""
        return self._owners[slot]

    def moved(self, slot: int, place: str) -> None:
        """A server said that the slot is there now."""
        self._owners[slot] = place

    def differing(self, other: SlotMap) -> list[int]:
        """The slots that another map has elsewhere."""
        return [slot for slot, (one, two) in enumerate(zip(self._owners, other._owners, strict=True)) if one != two]

    @property
    def masters(self) -> dict[str, int]:
        """Every master that has slots, and the first of them."""
        first: dict[str, int] = {}
        for slot, place in enumerate(self._owners):
            if place:
                first.setdefault(place, slot)
        return first


def map_from(reply: object, asked: str) -> SlotMap:
    """The answer to CLUSTER SLOTS. `asked`: whom, as a server may leave its own host out. Raises `ProtocolError`."""
    owners = [""] * SLOTS
    replicas: dict[str, list[str]] = {}
    try:
        for first, last, *servers in reply:  # type: ignore[attr-defined]
            place, *others = (_place(host, port, asked) for host, port, *_ in servers)
            owners[first : last + 1] = [place] * (last + 1 - first)
            replicas[place] = others
        if len(owners) != SLOTS:
            raise ValueError("more slots than there are")
    except (TypeError, ValueError, AttributeError) as cause:
        raise ProtocolError(f"redis at {asked} told its slots by {repr(reply)[:80]}: is it a cluster?") from cause
    return SlotMap(owners, replicas)


def _place(host: object, port: object, asked: str) -> str:
    text = host.decode() if isinstance(host, bytes) else str(host or "")
    return place_of(text or asked.rpartition(":")[0], int(port))  # type: ignore[call-overload]


def place_of(host: str, port: int) -> str:
    """A server as it stands in the map."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
