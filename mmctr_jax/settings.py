"""What every settings class stands on: frozen, strictly typed, no unknown key; and the types of common values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Width = Annotated[int, Field(ge=1, le=2**31 - 1)]
Rows = Annotated[int, Field(ge=1, le=2**20)]
LARGEST = 3e38  # what float32 holds
NonNegative = Annotated[float, Field(ge=0.0, le=LARGEST)]
Positive = Annotated[float, Field(gt=0.0, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Depth = Annotated[int, Field(ge=0, le=1000)]
Name = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
"""A column, a file or a folder; no system has a path with a zero in it."""


class Settings(BaseModel):
    """A section of the configuration. Checked when built; no value is ever silently ignored or converted.

    A string literal under a field describes it: unit, constraint, what null means. The settings reference in the docs
    is made of these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
