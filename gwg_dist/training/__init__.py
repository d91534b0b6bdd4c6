"""A run as a thing on disk and on machines: settings, folder, checkpoints, processes, trainer, results."""
