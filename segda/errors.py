"""Every error that a user of segda can cause, under one base class.

A message says what was expected, what came, and what to do. Command lines print it on one line and exit with code 2. All are here,
and take a message alone: so one that ends a further process of a training is raised as itself in the first (`segda.team`).
"""


class SegdaError(Exception):
    """Base of all errors that this library raises on purpose."""


class ConfigError(SegdaError, ValueError):
    """A configuration that cannot be run: unknown key, value out of range, parts that do not fit together."""


class UnknownNameError(ConfigError, KeyError):
    """A name that stands for nothing: no method, network, data set, ... is called so."""

    def __str__(self) -> str:  # a KeyError would show its text in quotes
        return str(self.args[0]) if self.args else ""


class GuestError(ConfigError):
    """Something from outside this package cannot be used: its import fails, or it is not what it is named as."""


class DatasetNotFoundError(SegdaError, FileNotFoundError):
    """A data set's root, split or file list is missing."""


class CorruptSampleError(SegdaError):
    """One sample cannot be used: unreadable file, missing label, sizes that differ, label id out of range."""


class CacheError(SegdaError):
    """The folder of decoded images cannot be written."""


class WeightsError(SegdaError):
    """Pretrained weights or a checkpoint are missing, damaged or do not fit the network."""


class DamagedCheckpointError(WeightsError):
    """A checkpoint is there, and it is not what this version wrote: cut off, empty, or with other bytes or content."""


class ExportError(SegdaError):
    """A network cannot be shipped in the way that was asked for, or what was made of it does not predict what it does."""


class DeviceError(SegdaError):
    """The requested device or number of devices does not exist."""


class TrainingDivergedError(SegdaError, ArithmeticError):
    """A loss became NaN or infinite; training on would waste the budget."""


class ProcessLostError(SegdaError):
    """One of the processes of a training ended or fell silent; the run goes on from its checkpoint when it is started again."""


class OutOfMemoryError(SegdaError, MemoryError):
    """The device ran out of memory during a step."""
