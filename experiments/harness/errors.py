"""What a command tells its user in one sentence, by exit code; see `command.command`."""


class ConfigError(ValueError):
    """A flag that cannot be used as given (exit code 2)."""


class DataError(ValueError):
    """Data that are missing, damaged or not to be had (exit code 2)."""


class RunError(ValueError):
    """A run folder that cannot be used as asked (exit code 2)."""


class RunFailedError(RuntimeError):
    """Training or evaluation that came to an end no flag check could foresee (exit code 1)."""
