from ..cli.conftest import files, own_cache, surroundings  # noqa: F401  # the same files, the same surroundings
