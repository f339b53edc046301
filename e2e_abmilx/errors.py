"""What a user can mend: the one base class that the command line turns into a sentence and an exit code."""


class InputError(Exception):
    """Something in the input that its owner can mend; the message holds the value, the rule and the cure."""


class SourceError(InputError):
    """Something that a user already has, and that cannot be imported."""
