"""What the extra `study` brings, imported in one place, so that what is missing is named."""

from ..errors import MissingExtraError

try:
    import pydantic
    import yaml
except ImportError as error:
    raise MissingExtraError(error.name or "pydantic", "study", "a study") from error

__all__ = ["pydantic", "yaml"]
