"""The four operators of window-attention restorers; importing this package registers ``torch.ops.agileir.*``."""

from .attention import plain_attention
from .group_shifted_window_attention import group_shifted_window_attention
from .group_shifted_window_attention import plain as plain_group_attention
from .key_semantic_attention import key_semantic_attention
from .key_semantic_dictionary import key_semantic_dictionary
from .key_semantic_dictionary import plain as plain_dictionary
from .registry import DOMAIN, NAMESPACE_ATTRIBUTE, OPERATORS, VERSION, Operator
from .shifted_window_attention import shifted_window_attention
from .tensorrt_plugins import register_tensorrt

__all__ = [
    "DOMAIN",
    "NAMESPACE_ATTRIBUTE",
    "OPERATORS",
    "VERSION",
    "Operator",
    "group_shifted_window_attention",
    "key_semantic_attention",
    "key_semantic_dictionary",
    "plain_attention",
    "plain_dictionary",
    "plain_group_attention",
    "register_tensorrt",
    "shifted_window_attention",
]
