"""The command line of training: LightningCLI, callbacks, loggers."""
