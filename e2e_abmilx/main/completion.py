"""The scripts with which bash and zsh complete commands and options.

A script holds all names, so that the shell answers at once: importing what knows them takes seconds. It is made anew
after an update.
"""

import inspect
import pkgutil
from collections.abc import Sequence

from e2e_abmilx.errors import InputError
from e2e_abmilx.main.commands import COMMANDS, Command
from e2e_abmilx.main.starting import call, call_with_folder, pass_all, pass_words

_BASH = """\
_e2e_abmilx() {
    local current="${COMP_WORDS[COMP_CWORD]}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="@commands --help --version"
    else
        case "${COMP_WORDS[1]}" in
@cases
        esac
        case "$current" in -*) ;; *) words="" ;; esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _e2e_abmilx e2e-abmilx
"""
_ZSH = """\
_e2e_abmilx() {
    if (( CURRENT == 2 )); then
        compadd -- @commands --help --version
    elif [[ $PREFIX != -* ]]; then
        _files
    else
        local -a options
        case ${words[2]} in
@cases
        esac
        compadd -- $options
    fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _e2e_abmilx e2e-abmilx
"""
#: Commands with options of their own beside those of a fit: the parsers of these.
_PARSERS = {"compare": "e2e_abmilx.runs.compare:make_parser", "crossval": "e2e_abmilx.runs.crossval:make_parser"}
_SCRIPTS = {  # and the line of one command
    "bash": (_BASH, '            {name}) words="{options}" ;;'),
    "zsh": (_ZSH, "            {name}) options=({options}) ;;"),
}


def completion(words: Sequence[str]) -> str:
    """Return the script of a shell.

    ``e2e-abmilx completion bash >> ~/.bashrc``, or ``zsh`` and ``~/.zshrc``. Files are completed where a value is
    expected. Of the options of ``fit`` and its like, those of the short help are completed.

    Args:
        words: The shell, ``bash`` or ``zsh``.

    Raises:
        InputError: It is another shell.
    """
    if list(words) not in (["bash"], ["zsh"]):
        given = " ".join(words) or "not given"
        raise InputError(f"the shell is {given}; name bash or zsh: e2e-abmilx completion bash >> ~/.bashrc")
    script, line = _SCRIPTS[words[0]]
    cases = [line.format(name=name, options=" ".join(_options(name, one))) for name, one in COMMANDS.items()]
    return script.replace("@commands", " ".join(COMMANDS)).replace("@cases", "\n".join(cases))


def _options(name: str, command: Command) -> list[str]:
    """Return the options of a command; for ``predict``, those that go with ``--model``."""
    from e2e_abmilx.training.short_help import options_of

    own: list[str] = []
    if command.starts in (call, call_with_folder):
        own = list(inspect.signature(pkgutil.resolve_name(command.target)).parameters)
    elif command.starts in (pass_all, pass_words) and "completion" not in command.target:
        own = [option for options in options_of(name).values() for option in options]
        if name in _PARSERS:
            parser = pkgutil.resolve_name(_PARSERS[name])()
            own = [word[2:] for word in parser._option_string_actions if word not in ("-h", "--help")] + own
    return [f"--{option}" for option in [*own, "help"]]
