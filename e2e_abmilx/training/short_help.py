"""The help of plan, fit, validate, test and predict: a line for each option that is used often, ours first."""

_PURPOSE = {
    "plan": "Show what a fit will take, and what its test can show, before anything is started.",
    "fit": "Train a model, then test its best checkpoint if there are test cases.",
    "validate": "Measure a checkpoint on the validation cases.",
    "test": "Measure a checkpoint on the test cases, and write predictions.csv.",
    "predict": "Predict all cases of a config; `predict --model best.ckpt --help` needs none.",
}

#: Options by section; a test checks that the parser has each of them.
OPTIONS = {
    "": {
        "config": "YAML file with these options; the command line overrules it",
        "print_config": "print all settings as a config, and exit",
    },
    "model: ClassificationTask, MultiLabelTask, SurvivalTask, CoxTask or RegressionTask": {
        "model": "class of the task",
        "model.num_outputs": "classes or time bins; 1 for a regression",
        "model.encoder": "ResNetEncoder, TimmEncoder, FrozenEncoder or Precomputed",
        "model.head": "ABMILX, ABMIL, CLAM, TransMIL, MeanPool or another head",
        "model.augment": "augmentation of patches, such as RandomCrops",
        "model.loss": "replaces the task's own loss",
        "model.optimizer": "such as AdamW, with --model.optimizer.lr",
        "model.schedule": "of the learning rate, such as WarmupCosine",
        "model.train_chunk_size": "most patches that are encoded at once",
        "model.gradient_checkpointing": "true needs less memory and more time",
        "model.compile_encoder": "true compiles the encoder, for long training on a GPU",
        "model.sensitivity": "that the threshold must reach, such as 0.95",
    },
    "data: SlideDataModule, FeatureDataModule or SyntheticDataModule": {
        "data": "class of the data module",
        "data.cache": "folder of patch stores; FeatureDataModule: data.features",
        "data.labels": "label table (CSV), a row per slide or case",
        "data.slides": "slides that are cached first, where they are not yet",
        "data.columns": "the table's own names of columns: '{label: grade}'",
        "data.target": "label, survival or another kind of target",
        "data.classes": "classes in their order",
        "data.mpp": "µm per pixel of each scale",
        "data.patch_size": "side of a patch, pixels",
        "data.patches_per_bag": "patches of a training bag",
        "data.coarse_fraction": "fraction of them from the coarser scales",
        "data.batch_size": "bags per batch",
        "data.num_workers": "processes that read bags",
        "data.draw": "how patches are drawn: RunDraw, RegionalDraw or AttentionDraw",
        "data.balanced": "true draws all classes equally often",
        "data.oversample": "draws of a class per epoch: '{ILC: 2}'",
        "data.splits": "file of splits, or folder with one file per fold",
        "data.fold": "fold to test on",
        "data.folds": "number of folds that are made",
        "data.val_fraction": "fraction of the training cases held out for validation",
        "data.skip_missing": "true leaves out cases whose slides are missing",
        "data.seed": "seed of draws; data.split_seed is that of splits",
    },
    "checkpoint:": {
        "ckpt_path": "checkpoint to use or to continue: best, last or a file",
        "checkpoint.monitor": "metric that chooses best.ckpt, such as val/auc",
        "checkpoint.mode": "max or min, whichever is better",
        "last_checkpoint.every_n_steps": "optimizer steps between two last.ckpt",
    },
    "trainer:": {
        "trainer.default_root_dir": "folder of the run (default: runs/COMMAND)",
        "trainer.max_epochs": "epochs",
        "trainer.accelerator": "cpu, gpu, mps or auto",
        "trainer.devices": "number of devices, or which: 0 1",
        "trainer.precision": "such as bf16-mixed (default: what suits the device)",
        "trainer.accumulate_grad_batches": "batches per optimizer step",
        "trainer.gradient_clip_val": "largest norm of the gradient",
        "trainer.callbacks+": "one more callback: AttentionHeatmap, Faithfulness, …",
        "trainer.enable_progress_bar": "false hides bar and lines",
        "trainer.fast_dev_run": "true tries a batch of each stage",
        "seed_everything": "seed of weights and draws",
    },
}

#: Options that one command has alone.
OPTIONS_OF = {
    "plan": {
        "gpu_memory": "GB of a GPU: which bags, batches and chunks fit it",
        "probe": "run a few steps here, to estimate the hours of training",
        "json": "file to write the plan to",
    }
}

_MORE = """\
COMMAND --help_all                shows all options, with those of Lightning's trainer
COMMAND --model.help CLASS        shows all options of a task
COMMAND --data.help CLASS         shows all options of a data module
COMMAND --model.head.help ABMIL  shows those of a head; so for model.encoder, model.augment, …
Lists: --data.mpp 0.5 1.0 or 0.5,1.0 or [0.5,1.0].
--model.head ABMIL keeps the settings of the config's head that ABMIL has too.
"""


def options_of(command: str) -> dict[str, dict[str, str]]:
    """Return the options of a command by section; its own come first."""
    return {"": OPTIONS_OF.get(command, {}) | OPTIONS[""]} | {title: own for title, own in OPTIONS.items() if title}


def short_help(command: str) -> str:
    """Return the help of a command."""
    lines = [f"usage: e2e-abmilx {command} --config CONFIG [options]", "", _PURPOSE[command]]
    for title, options in options_of(command).items():
        lines += ["", title] if title else [""]
        lines += [f"  --{name:<30} {text}" for name, text in options.items()]
    return "\n".join([*lines, "", _MORE]).replace("COMMAND", command)
