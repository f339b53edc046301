"""The parser of the options of fit, validate, test and predict."""

import re
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from e2e_abmilx.io.option_parser import OptionParser
from e2e_abmilx.training.old_options import refuse_old_options


class BagArgumentParser(OptionParser, LightningArgumentParser):
    """LightningCLI's parser, except that it takes no abbreviated names and reads null as None at every depth."""

    def __init__(self, *args: Any, **how: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **{"allow_abbrev": False, **how})

    def parse_args(self, args: Any = None, *more: Any, **how: Any) -> Any:  # noqa: ANN401
        """Parse options.

        jsonargparse parses the options of a nested class with a parser of its own, to which it passes
        ``--weights=null`` as ``--weights=None``. That would be read as the text "None", or as a file of that name.
        """
        if not self.exit_on_error and args:  # only the parsers of nested classes do not exit
            args = [re.sub(r"^(--[^=]+)=None$", r"\1=null", word) for word in args]
        return super().parse_args(args, *more, **how)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error and exit.

        Raises:
            InputError: An option has a new name.
        """
        if self.exit_on_error:
            refuse_old_options(self._words, message)
        super().error(message, ex)
