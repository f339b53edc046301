"""Whether more or less of a metric is better, for those who choose and stop by it."""

import difflib
from collections.abc import Callable, Iterable
from typing import Literal

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torchmetrics import MetricCollection

from e2e_abmilx.errors import InputError
from e2e_abmilx.tasks.old_names import METRICS

Mode = Literal["min", "max"]


class Monitors:
    """What a task logs in validation, and which way it gets better.

    Args:
        metrics: The validation metrics, by their full names.
        own: The metric that the task chooses by.
        own_mode: Whether more or less of that is better.
        has_loss: Whether ``val/loss`` is logged.
        others: Names of what else is logged, of which neither more nor less is better.
        is_complete: Whether nothing besides is logged, so that another name is a mistake.
    """

    def __init__(
        self,
        metrics: MetricCollection,
        own: str,
        own_mode: Mode,
        *,
        has_loss: bool,
        others: Iterable[str],
        is_complete: bool,
    ) -> None:
        self.modes: dict[str, Mode | None] = dict.fromkeys(others)
        for name, metric in metrics.items():
            better = metric.higher_is_better
            self.modes[name] = None if better is None else "max" if better else "min"
        self.modes |= {"train/loss_step": "min", "train/loss_epoch": "min", own: own_mode}
        if has_loss:
            self.modes["val/loss"] = "min"
        self.is_complete = is_complete

    def mode_of(self, name: str, stated: str | None) -> Mode:
        """Return whether to maximise or to minimise a metric.

        Args:
            name: Its full name, such as ``val/auc``.
            stated: What the user says; None for nothing.

        Raises:
            InputError: There is no such metric, what is stated contradicts it, or nothing is known and nothing stated.
        """
        if self.is_complete and name not in self.modes:
            split, _, metric = name.rpartition("/")
            new = f"{split}/{METRICS[metric]}" if metric in METRICS else name
            near = difflib.get_close_matches(new, self.modes, n=1)
            meant = f" (is it {near[0]}?)" if near else ""
            raise InputError(
                f"there is no metric {name!r}{meant}; choose and stop by one of {', '.join(sorted(self.modes))}"
            )
        known = self.modes.get(name)
        if known is not None and stated not in (None, known):
            raise InputError(
                f"{name} is better the {'higher' if known == 'max' else 'lower'} it is, and mode {stated} would take the"
                f" worst of it; set mode: {known}"
            )
        if known is not None:
            return known
        if stated not in ("min", "max"):
            raise InputError(
                f"whether more or less of {name} is better is not known; set mode to max or min beside its monitor"
            )
        return stated  # type: ignore[return-value] # one of the two

    def check(self, callbacks: Iterable[Callback], why_undefined: Callable[[str], str | None]) -> None:
        """Refuse callbacks that watch what there is not, take the worst for the best, or stop by what has no value.

        Args:
            callbacks: Those of the trainer.
            why_undefined: Why the validation cases have no value of a metric; None where they have.

        Raises:
            InputError: One of them does.
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
