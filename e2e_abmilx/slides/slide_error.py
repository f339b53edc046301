"""The error about slides."""

from e2e_abmilx.errors import InputError


class SlideError(InputError):
    """A slide that cannot be used."""
