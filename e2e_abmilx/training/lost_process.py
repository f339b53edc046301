"""Errors by which a process notices that another one of its run has ended."""

import torch.distributed

#: What gloo says, whose errors have no class of their own.
_GLOO = ("gloo", "Connection closed by peer", "Connection reset by peer")


def explain_lost_process(error: RuntimeError, command: str) -> str | None:
    """Return what has happened and what to do, if an error says that another process of the run has ended.

    Args:
        error: An error of a run with several processes.
        command: The command that ran, such as ``fit``.

    Returns:
        A sentence; None for any other error.
    """
    is_of_connection = isinstance(error, torch.distributed.DistError) or any(words in str(error) for words in _GLOO)
    if not is_of_connection:
        return None
    again = (
        "with --ckpt_path last, which resumes the run if its folder has a last.ckpt" if command == "fit" else "again"
    )
    return (
        "another process of this run has ended, or cannot be reached, so this one ends too; its own log says why. Start"
        f" all processes with the same command {again} ({type(error).__name__}: {str(error).splitlines()[0]})"
    )
