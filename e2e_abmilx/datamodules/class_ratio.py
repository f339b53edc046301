"""The ratio of the classes in training: every case once, all classes equally often, or some classes repeated."""

from collections.abc import Mapping, Sequence

from e2e_abmilx.cohort import CohortError, TargetKind


def check_ratio(target: TargetKind, *, balanced: bool, oversample: Mapping[str, int]) -> None:
    """Refuse settings of the ratio that contradict each other or the target.

    Raises:
        ValueError: The setting needs classes that the target does not have, both settings are given, or a number of
            draws is not positive.
    """
    if balanced and target == "multi_label":
        raise ValueError(
            "balanced draws classes equally often, but a case of target multi_label has several; omit it, or weight"
            " rare classes in the loss (MaskedBCE, positive_weight)"
        )
    if balanced and target == "regression":
        raise ValueError("balanced draws classes equally often, and target regression has none; omit it")
    if oversample and target != "label":
        raise ValueError(
            f"oversample repeats the cases of a class, and target {target} has no classes that exclude each other; omit it"
        )
    if oversample and balanced:
        raise ValueError("balanced and oversample both set how often a class is drawn; give one of them")
    for name, times in oversample.items():
        if times < 1:
            raise ValueError(
                f"oversample: {{{name}: {times}}} says how often each case of class {name} is drawn in an epoch; it must be"
                " at least 1"
            )


def draws_per_case(labels: Sequence[int], classes: Sequence[str], oversample: Mapping[str, int]) -> list[int]:
    """Return the number of draws of each case in an epoch.

    >>> draws_per_case([0, 1, 0], ["IDC", "ILC"], {"ILC": 2})
    [1, 2, 1]

    Raises:
        CohortError: There is no such class.
    """
    unknown = [name for name in oversample if name not in classes]
    if unknown:
        raise CohortError(f"data.oversample: {unknown[0]!r} is not one of the classes {list(classes)}")
    return [oversample.get(classes[label], 1) for label in labels]
