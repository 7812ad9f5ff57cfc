"""The errors that byheart raises. Each message names the value, the place, and the way out.

ByheartError               caught by the CLI, shown without a traceback, exit code 1
├── ConfigError            the config file or a flag is wrong (all faults at once)
├── IngestError            nothing of the manual could be read
├── TeacherError           the teacher model cannot be used (key, address, budget)
├── TrainError             training cannot start or go on (no pairs, loss is not a number)
├── ModelError             a base model or adapter cannot be loaded, or is not what it should be
├── RunFolderError         the run folder is busy, torn, or not writable
├── MissingInputError      a stage was asked for before the one that feeds it
├── EngineError            the model's own server cannot be started, or does not answer
├── StorageError           the server's database cannot be reached, or refuses
└── MissingExtraError      an optional package is needed; the message carries its pip line
"""


class ByheartError(Exception):
    """The root: a message written for the person who sees it."""


class ConfigError(ByheartError):
    """One or more faults in the config, each with file and line."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class IngestError(ByheartError):
    """Nothing of the manual could be read."""


class TeacherError(ByheartError):
    """The teacher cannot be used: key, address, budget."""


class TrainError(ByheartError):
    """Training cannot start or go on."""


class ModelError(ByheartError):
    """A base model or an adapter cannot be loaded, or is not what it should be."""


class RunFolderError(ByheartError):
    """The run folder is busy, torn, or not writable."""


class MissingInputError(ByheartError):
    """A stage was asked for before the one that feeds it."""


class EngineError(ByheartError):
    """The server that the model runs in cannot be started or reached, or gives no answer."""


class StorageError(ByheartError):
    """The server's database cannot be reached, or refuses."""


class MissingExtraError(ByheartError):
    """An optional package is needed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}. Install it with: pip install 'byheart[{extra}]'")
