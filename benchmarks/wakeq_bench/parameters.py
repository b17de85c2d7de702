"""What a scenario can be told: typed fields with their bounds, given as text on the command line or read from JSON."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError


class InvalidParameter(ValueError):
    """A parameter that a scenario doesn't have, or a value that it can't take; the message says what it takes."""


class Parameters(BaseModel):
    """Those of one scenario; each field has its meaning as its description."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _parts(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int | float) else value


def among(*allowed: str) -> AfterValidator:
    """Lets names be these alone, in this order."""

    def check(names: list[str]) -> list[str]:
        unknown = [name for name in names if name not in allowed]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is not among {', '.join(allowed)}")
        return [name for name in allowed if name in names]

    return AfterValidator(check)


Counts = Annotated[list[Annotated[int, Field(gt=0)]], BeforeValidator(_parts), Field(min_length=1)]
"""Numbers above 0 with commas between them, one measurement each."""
Sizes = Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(_parts), Field(min_length=1)]
"""The same, of what there may be none."""
Names = Annotated[list[str], BeforeValidator(_parts), Field(min_length=1)]
"""Names with commas between them."""


def filled(model: type[Parameters], *layers: Mapping[str, Any]) -> Parameters:
    """Parameters from defaults and what stands above them, later layers first. Raises InvalidParameter."""
    given = {name: value for layer in layers for name, value in layer.items()}
    unknown = [name for name in given if name not in model.model_fields]
    if unknown:
        raise InvalidParameter(f"there is no {unknown[0]!r} here; it takes {', '.join(model.model_fields)}")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise InvalidParameter(_sentence(model, error)) from error


def _sentence(model: type[Parameters], error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    reason = first["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    if not name:
        return reason
    meaning = model.model_fields[name].description or ""
    return f"{name}: {first['input']!r} {reason}. It is: {meaning}" if "should" in reason else f"{name}: {reason}"
