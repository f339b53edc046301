"""Hooks of mkdocs: pages that are generated from the code, and equations as MathML."""

import html
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

import options
from docstrings import to_markdown

ROOT = Path(__file__).parents[2]
_API = "Python API"
_MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation with a page per room."""
    for section in config.nav or []:
        for title, pages in section.items():
            if isinstance(pages, list):
                section[title] = [_complete(page) for page in pages]
    return config


def _complete(page: Any) -> Any:  # noqa: ANN401 - a path, or a title with its pages
    return {_API: [f"reference/api/{room}.md" for room in rooms()]} if page == {_API: []} else page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "reference/commands.md": commands_page(),
        "reference/fit.md": fit_page(),
        "reference/classes.md": classes_page(),
        "reference/configs.md": configs_page(),
        "reference/store_format.md": (ROOT / "e2e_abmilx/store/FORMAT.md").read_text(encoding="utf-8"),
        "reference/changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        **{f"reference/api/{room}.md": api_page(room) for room in rooms()},
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    for picture in ("report.png", "viewer.webp"):
        files.append(File.generated(config, picture, abs_src_path=str(ROOT / ".github" / picture)))
    return files


def on_page_content(content: str, **kwargs: Any) -> str:  # noqa: ANN401
    """Replace LaTeX by MathML, which browsers draw themselves."""
    return _MATH.sub(_to_mathml, content)


def _to_mathml(found: re.Match[str]) -> str:
    element, bracket, latex = found.groups()
    equation = convert(html.unescape(latex).strip(), display="block" if bracket == "[" else "inline")
    return f'<{element} class="arithmatex">{equation}</{element}>'


def rooms() -> list[str]:
    """Return the rooms of the package that export names, in alphabetical order."""
    found = sorted(path.parent.name for path in (ROOT / "e2e_abmilx").glob("*/__init__.py"))
    return [room for room in found if _exported(room)]


def _exported(room: str) -> list[str]:
    return list(getattr(import_module(f"e2e_abmilx.{room}"), "__all__", []))


def api_page(room: str) -> str:
    """Return the page of a room: its docstring, and every name that it exports."""
    module = import_module(f"e2e_abmilx.{room}")
    about = to_markdown(inspect.cleandoc(module.__doc__ or ""))
    names = "\n\n".join(f"::: e2e_abmilx.{room}.{name}" for name in sorted(_exported(room), key=str.lower))
    return f"# e2e_abmilx.{room}\n\n{about}\n\n{names}\n"


def commands_page() -> str:
    """Return the page of the commands that need no config, and of those that run many fits."""
    parts = [
        (
            "# Commands\n\nGenerated from the functions and parsers of the commands. `e2e-abmilx --help` lists all commands, and"
            " `e2e-abmilx COMMAND --help` shows the options below. Those of `fit`, `validate`, `test` and `predict --config` are"
            " on [their own page](fit.md).\n\n"
            "- A list is written as `0.5 1.0`, `0.5,1.0` or `[0.5,1.0]`.\n"
            "- Errors are one line; `--debug`, with any command, adds the traceback.\n"
            "- `e2e-abmilx completion bash` (or `zsh`) prints a script that completes commands and options."
        )
    ]
    for name, function in options.functions().items():
        title = f"{name} --model" if name == "predict" else name
        about = to_markdown(inspect.getdoc(function) or "").partition("\nArgs:")[0]
        parts.append(f"## {title}\n\n{about}\n\n{options.table(options.of_function(function))}")
    for name, own in options.of_many_fits().items():
        parts.append(f"## {name}\n\nIt takes all [options of `fit`](fit.md), and these:\n\n{options.table(own)}")
    return "\n\n".join(parts) + "\n"


def fit_page() -> str:
    """Return the page of the commands of LightningCLI."""
    of = options.of_configured()
    own, lightning = [], []
    for option in of["fit"]:
        (lightning if option.name.startswith("trainer") else own).append(option)
    known = {option.name for option in of["fit"]}
    more = {name: [one for one in found if one.name not in known] for name, found in of.items()}
    added = "\n\n".join(f"## {name} also has\n\n{options.table(found)}" for name, found in more.items() if found)
    return f"""# fit, validate, test, predict

Generated from the parser. These commands read a config, `--config FILE`; options on the command line overrule it. The
options of `--model` and `--data` are those of the class that is named: see [classes](classes.md). Every run has the
callbacks behind `--checkpoint` and `--last_checkpoint`; further ones are added by `--trainer.callbacks+=NAME`.
`fit --help` shows the options that are used often, `fit --help_all` all of them, and `--print_config` all settings as a config.

{options.table(own)}

{added}

## Options of the trainer

They are Lightning's. Where a config leaves them open, this package chooses `trainer.default_root_dir` (`runs/COMMAND`),
`trainer.logger` (`metrics.csv` in the folder of the run) and `trainer.precision` (what suits the device).

{options.table(lightning)}
"""


def classes_page() -> str:
    """Return the page of the classes that a config can name."""
    parts = [
        (
            "# Classes of a config\n\nGenerated from the classes. A config names a class by `class_path` and its settings by"
            " `init_args`; on the command line, `--model.head ABMIL --model.head.hidden_features 128` does the same. A class of"
            " your own is named with its module, such as `my_lab.MyHead`."
        )
    ]
    for option, found in options.classes().items():
        parts.append(f"## `{option}`")
        for cls in found:
            about = to_markdown((inspect.getdoc(cls) or "").split("\n\n")[0])
            settings = options.of_class(cls)
            prefix = "" if option == "trainer.callbacks" else f"{option}."
            listed = options.table(settings, prefix=prefix) if settings else "No settings."
            parts.append(f"### {cls.__name__}\n\n{about}\n\n{listed}")
    return "\n\n".join(parts) + "\n"


def configs_page() -> str:
    """Return the page of the configs, whose comments say what each is for."""
    parts = [
        (
            "# Configs\n\nThe files in `configs/`, with their comments. `fit --config` and the other commands take them."
            " `panda_r18`, `panda_r50`, `brca_subtyping_r18`, `brca_subtyping_r50` and `brca_survival_r18` are the paper's five"
            " recipes for training end to end, with a comment wherever they differ from the authors' release. The most important"
            " difference: checkpoints are chosen on validation cases. `data.select_on_test: true` repeats the authors' choice on"
            " test cases."
        )
    ]
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        yaml.safe_load(text)
        parts.append(f"## {path.stem}\n\n```yaml\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"
