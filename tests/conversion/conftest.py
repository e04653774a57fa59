from ..cli.conftest import files, surroundings  # noqa: F401  # the same files, the same surroundings
