"""A kernel around the GELU of the half blocks, so that it can be seen alone."""

import triton
import triton.language as tl

from agileir_export.plugins.half_block_kernels import gelu


@triton.jit
def gelu_kernel(values, output, size: tl.constexpr, kind: tl.constexpr):
    place = tl.arange(0, size)
    tl.store(output + place, gelu(tl.load(values + place), kind))
