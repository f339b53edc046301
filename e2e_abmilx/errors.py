"""Errors that users can fix; the command line prints their message and exits with a status."""


class InputError(Exception):
    """Error in the input that the user can fix; the message states the value, the rule and the cure."""


class SourceError(InputError):
    """Error in existing files of a user, which cannot be imported."""


class SlideError(InputError):
    """Error in a slide, which cannot be used."""
