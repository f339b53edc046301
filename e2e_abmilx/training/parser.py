"""The parser of the options of fit, validate, test and predict."""

import argparse
import re
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from e2e_abmilx.io.option_parser import OptionParser
from e2e_abmilx.training.class_names import explain_class_name
from e2e_abmilx.training.old_options import refuse_old_options
from e2e_abmilx.training.short_help import short_help

_SUBCLASSES = re.compile(r",\s+known\s+subclasses:[^)]*")
_MOST_LINES = 50


class _HelpOfAll(argparse.Action):
    """Print the help of all options and exit."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> NoReturn:
        assert isinstance(parser, BagArgumentParser)
        print(parser.format_help_of_all())
        parser.exit()


class BagArgumentParser(OptionParser, LightningArgumentParser):
    """LightningCLI's parser, except that it takes no abbreviated names and reads null as None at every depth."""

    def __init__(self, *args: Any, **how: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **{"allow_abbrev": False, **how})
        self._has_short_help = False

    def add_help_of_all(self) -> None:
        """Make ``--help`` the short help, and add ``--help_all``, which shows all options."""
        self.usage = "%(prog)s --config CONFIG [options]"
        self._has_short_help = True
        self.add_argument("--help_all", "--help-all", action=_HelpOfAll, help="Show this help message and exit.")

    def format_help(self, *how: Any) -> str:  # noqa: ANN401
        """Return the help of a command, short, or that of a nested class."""
        return short_help(self.prog.split()[-1]) if self._has_short_help else self.format_help_of_all()

    def format_help_of_all(self) -> str:
        """Return the help of all options, without the longest lists of classes, such as all of torch's modules."""
        return _SUBCLASSES.sub(
            lambda found: "" if found[0].count("\n") > _MOST_LINES else found[0], super().format_help()
        )

    def parse_args(self, args: Any = None, *more: Any, **how: Any) -> Any:  # noqa: ANN401
        """Parse options.

        jsonargparse parses the options of a nested class with a parser of its own, to which it passes
        ``--weights=null`` as ``--weights=None``. That would be read as the text "None", or as a file of that name.
        """
        if not self.exit_on_error and args:  # only the parsers of nested classes do not exit
            args = [re.sub(r"^(--[^=]+)=None$", r"\1=null", word) for word in args]
        return super().parse_args(args, *more, **how)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error, in one sentence where a class name is mistyped, and exit.

        Raises:
            InputError: An option has a new name.
        """
        if self.exit_on_error:
            refuse_old_options(self._words, message)
            message = explain_class_name(self._words) or message
        super().error(message, ex)
