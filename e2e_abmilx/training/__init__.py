"""Training from the command line, with LightningCLI.

* ``cli``: the commands fit, validate, test and predict
* ``parser``: the parser of their options
* ``short_help``: the help of these commands
* ``stated_settings``: what a command line and its config files state
* ``old_options``: options of earlier releases, refused with their present names
* ``class_names``: names of classes that are mistyped, explained
* ``checkpoint_files``: the file that ``--ckpt_path`` means
* ``checkpoint_settings``: the model's settings that a checkpoint restores, against those that are stated
* ``lost_process``: what to do when another process of a run has ended
* ``trainer_defaults``: folder, logger, precision and progress of a run, where the config leaves them open
* ``precision``: the usual precision on this machine
* ``metric_table``: the metrics of a test, for a terminal
* ``lost_process``: what to say when another process of a run has ended
* ``loggers``: ``metrics.csv``, which a resumed run continues
* ``callbacks``: one behaviour of a run per file
"""
