"""Networks of the library spandrel: any checkpoint that no family of this package claims is offered to it.

spandrel (https://github.com/chaiNNer-org/spandrel) recognises and builds some forty restoration networks. It is an
extra of this package, and imported only once a checkpoint is none of ours.
"""

from ..registry import Library, register_library
from .library import ForeignArchitecture, architectures, hint, recognises
from .loading import load

__all__ = ["LIBRARY", "ForeignArchitecture", "architectures"]

LIBRARY = register_library(Library("spandrel", recognises, load, hint))
