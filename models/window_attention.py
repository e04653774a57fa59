"""Window attention of Swin's kind, as the operator `shifted_window_attention`: SwinIR's, and that of libraries."""

from __future__ import annotations

from torch import Tensor

from ..plugins.attention import plain_attention
from ..plugins.shifted_window_attention.operator import shifted_window_attention
from .fusion import Surroundings
from .layers import HeadedAttention, table_parameter

__all__ = ["WindowAttention"]


class WindowAttention(HeadedAttention):
    """(Shifted) window attention with learned qkv and output projections."""

    def __init__(self, width: int, num_heads: int, window_size: int, shift_size: int) -> None:
        super().__init__(width, num_heads, window_size, shift_size)
        self.relative_position_bias_table = table_parameter(window_size, num_heads)

    def attend(self, qkv: Tensor, *context: Tensor) -> Tensor:
        """See `HeadedAttention.attend`; there is no context."""
        assert not context
        attend = shifted_window_attention if self.use_operator else plain_attention
        table = self.relative_position_bias_table.to(qkv.dtype)
        return attend(qkv, table, self.window_size, self.shift_size, self.num_heads)

    def surroundings(self) -> Surroundings | None:
        """See `Fusable.surroundings`."""
        found = super().surroundings()
        return found and found._replace(biases=self.relative_position_bias_table)
