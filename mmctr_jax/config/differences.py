"""Which settings may differ between two configs that belong to one run, or to one comparison.

That is said at each field: `eval_batch_size: Annotated[int, Marker.FREE_ON_RESUME]`.
"""

from __future__ import annotations

from enum import Flag, auto

from pydantic import BaseModel
from pydantic.fields import FieldInfo


class Marker(Flag):
    """What the annotation of a config field says of it besides its type."""

    FREE_ON_RESUME = auto()
    """A run may be resumed with another value. Of data files, the contents are compared instead of the path."""
    FREE_IN_COMPARISON = auto()
    """Another value does not make a finished result another one. Of data files, as above."""
    FIXED_IN_SEARCH = auto()
    """A search cannot vary it: what is scored on other rows cannot be compared."""

    def marks(self, field: FieldInfo) -> bool:
        """Whether the field's annotation carries this marker."""
        return any(isinstance(marker, Marker) and self in marker for marker in field.metadata)


def first_difference(a: BaseModel, b: BaseModel, ignoring: Marker | None = None) -> str | None:
    """The first dotted key whose values differ, as `key: a ≠ b`; None if none does.

    Args:
        a: Settings, such as a `Config`.
        b: Other settings of the same type.
        ignoring: Fields that carry this marker may differ.
    """

    def walk(x: BaseModel, y: BaseModel, prefix: str) -> str | None:
        # Where x and y are two kinds of a thing, such as two models, their first field tells: it is their name.
        for name, field in type(x).model_fields.items():
            if ignoring is not None and ignoring.marks(field):
                continue
            ours, theirs = getattr(x, name), getattr(y, name)
            if isinstance(ours, BaseModel) and isinstance(theirs, BaseModel):
                found = walk(ours, theirs, f"{prefix}{name}.")
                if found:
                    return found
            elif ours != theirs:
                return f"{prefix}{name}: {ours} ≠ {theirs}"
        return None

    return walk(a, b, "")


def marked_fields(section: type[BaseModel], marker: Marker, prefix: str = "") -> list[str]:
    """Dotted keys of the fields that carry `marker`, in the order of the settings."""
    keys = []
    for name, field in section.model_fields.items():
        if marker.marks(field):
            keys.append(f"{prefix}{name}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += marked_fields(field.annotation, marker, f"{prefix}{name}.")
    return keys
