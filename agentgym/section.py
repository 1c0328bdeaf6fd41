"""What every section of the configuration is: typed, closed, its fields explained where they stand."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, coerce_numbers_to_str=True, use_attribute_docstrings=True
    )
