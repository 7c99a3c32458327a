"""After-images: what a key is after a change, as the item's content, for entities that are refreshed.

Made with the entity's own codec, so that it is what a load would have filled. Whatever is in doubt is no image (I12):
the change then voids the key as it does without `refresh=`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

from cachelib.effects import Effect
from cachelib.errors import ValueTooLarge
from cachelib.model import ABSENCE, Content, RowChange, value_of

BYTES_MAX = 16_384

Unmade: TypeAlias = Literal["incomplete", "failed", "too_large"]
"""Why there is no image: a column is not in the log; the entity's function or its codec raised; it is too large."""


def with_image(effect: Effect, change: RowChange, bytes_max: int) -> tuple[Effect, Unmade | None]:
    """The effect with what its key is after the change, if that can be told; and why not, where it should have been."""
    if effect.entity.refresh is None or not effect.version or effect.force:
        return effect, None
    made = _content(effect, change, bytes_max)
    if not isinstance(made, Content):
        return effect, made
    # Of the row itself nothing else is needed, and many of these wait for nodes that are behind.
    slim = RowChange(change.table, change.op, tx=change.tx, at_us=change.at_us)
    return replace(effect, content=made, change=slim), None


def _content(effect: Effect, change: RowChange, bytes_max: int) -> Content | Unmade:
    entity = effect.entity
    if change.op == "delete":
        return ABSENCE
    if change.after is None or entity.refresh is None:
        return "incomplete"
    try:
        payload = entity.packer.pack(entity.refresh(change.after), bytes_max)
    except KeyError:
        return "incomplete"
    except ValueTooLarge:
        return "too_large"
    except Exception:  # noqa: BLE001 - the application's function, or its codec; the log must go on
        return "failed"
    return value_of(payload)
