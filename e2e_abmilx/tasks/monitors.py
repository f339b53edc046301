"""Monitors: whether a metric is to be maximised or minimised, for checkpoints and early stopping."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.old_names import new_metric

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Monitors:
    """The metrics that a task logs, each with its mode.

    Attributes:
        modes: Mode of each metric by its full name, such as ``val/auc``; None if neither direction is better.
        is_complete: Whether these are all logged metrics, so that any other name is a mistake.
    """

    modes: Mapping[str, Mode | None]
    is_complete: bool

    def mode_of(self, name: str, stated: str | None) -> Mode:
        """Return the mode of a metric, given by its full name; ``stated`` is the mode that the user states, or None.

        Raises:
            InputError: The metric does not exist, the stated mode contradicts it, or the mode is unknown and not stated.
        """
        if self.is_complete and name not in self.modes:
            near = difflib.get_close_matches(new_metric(name), self.modes, n=1)
            meant = f" (is it {near[0]}?)" if near else ""
            raise InputError(f"there is no metric {name!r}{meant}; monitor one of {', '.join(sorted(self.modes))}")
        known = self.modes.get(name)
        if known is not None and stated not in (None, known):
            better = "higher" if known == "max" else "lower"
            raise InputError(
                f"mode is {stated}, but a {better} {name} is better, so the worst model would be chosen;"
                f" set mode: {known}"
            )
        if known is not None:
            return known
        if stated not in ("min", "max"):
            raise InputError(
                f"it is not known whether a higher or a lower {name} is better; set mode to max or min next to its monitor"
            )
        return stated  # type: ignore[return-value] # one of the two

    def with_mode(self, name: str, mode: Mode, task: str) -> "Monitors":
        """Return these metrics with the mode of one more, which a task states.

        Raises:
            InputError: The metric is known, and the mode contradicts it.
        """
        try:
            return replace(self, modes={**self.modes, name: self.mode_of(name, mode)})
        except InputError as error:
            raise InputError(f"{task}: {error}") from None

    def check(self, callbacks: Iterable[Callback], why_undefined: Callable[[str], str | None]) -> None:
        """Refuse callbacks that monitor an unknown metric, have the wrong mode, or stop by an undefined metric.

        ``why_undefined`` returns why a metric is undefined on the validation cases, or None if it is defined.

        Raises:
            InputError: A callback has one of these faults.
        """
        for callback in callbacks:
            if not isinstance(callback, (EarlyStopping, ModelCheckpoint)) or callback.monitor is None:
                continue
            kind = type(callback).__name__
            try:
                self.mode_of(callback.monitor, callback.mode)
            except InputError as error:
                raise InputError(f"{kind}: {error}") from None
            reason = why_undefined(callback.monitor)
            if isinstance(callback, EarlyStopping) and reason is not None:
                raise InputError(
                    f"{kind} cannot stop by {callback.monitor} ({reason}); stop by val/loss, leave it out of"
                    " trainer.callbacks, or give the validation split other cases"
                )
