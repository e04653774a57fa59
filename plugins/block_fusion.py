"""Half blocks put into an exported file, as nodes that plugins run, in the place of the nodes that compute the same.

`block_patterns` finds them. This is done just before a build: no file that is given away has such nodes, so that it
stays readable, quantisable and portable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .block_patterns import BlockGraph, Found
from .catalogue import OPERATORS
from .half_block_plugins import NORM, NORM_PROJECTION, TOKEN_TAIL, WINDOW_ATTENTION, HalfBlock, epsilon_bits
from .launch import NoKernel
from .registry import DOMAIN, NAMESPACE_ATTRIBUTE

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

__all__ = ["fuse_blocks"]


def fuse_blocks(model: onnx.ModelProto, folder: Path) -> tuple[onnx.ModelProto, dict[str, tuple[str, ...]]]:
    """Puts half blocks in the place of the nodes around every operator.

    ``x + proj(attention(LN(x)))`` becomes one where the kernel takes it, else ``LN(x)`` with the projection after it;
    and what follows token by token another (`half_block_plugins`). Nodes of whose intermediate results something else
    reads one, of other forms, types or attributes, or too wide for a kernel, stay as they are.

    Args:
        model: An exported model, not yet in `engine_form`; it is not changed. Needs Triton and PyTorch.
        folder: Where weights in files of their own lie.

    Returns:
        The model, the very same where nothing was found, and by the name of every half block's node those of the nodes
        that it stands for.
    """
    import onnx

    fusion = _Fusion(BlockGraph(model, folder))
    for node in fusion.graph.nodes:
        if node.domain == DOMAIN and node.op_type in OPERATORS:
            fusion.around(node)
    if not fusion.made:
        return model, {}
    fused = onnx.ModelProto()
    fused.CopyFrom(model)
    fusion.write(fused.graph)
    nodes = fusion.graph.nodes
    return fused, {made.name: tuple(nodes[place].name for place in places) for made, places in fusion.made}


class _Fusion:
    """The half blocks that were found in a graph, with their weights."""

    def __init__(self, graph: BlockGraph) -> None:
        self.graph = graph
        self.made: list[tuple[onnx.NodeProto, tuple[int, ...]]] = []
        self.weights: list[onnx.TensorProto] = []

    def around(self, node: onnx.NodeProto) -> None:
        """Adds the half blocks around an operator's node."""
        graph = self.graph
        before, after = graph.norm_projection(node.input[0]), graph.projection(node.output[0])
        mlp = graph.mlp(after.output) if after else None
        if before and after and OPERATORS[node.op_type].in_half_block:
            with contextlib.suppress(NoKernel):
                self.window(node, before, after)
                before = after = None
        if before:
            with contextlib.suppress(NoKernel):
                self.head(node, before)
        if mlp:
            with contextlib.suppress(NoKernel):
                self.tail(node, after, mlp)

    def window(self, node: onnx.NodeProto, before: Found, after: Found) -> None:
        """Adds attention within windows with all that stands around it, the operator's node too."""
        from .half_blocks import pack_window_attention, window_attention_launch

        table = self.graph.constant(node.input[-1], 2)
        if table is None or not before.linears or after.input != before.input or after.rectified:
            raise NoKernel("half blocks: no residual around attention within windows")
        given = {entry.name: entry.i for entry in node.attribute if entry.name in WINDOW_ATTENTION.attributes}
        gain, shift = before.norm
        channels, window = len(gain), given["window_size"]
        window_attention_launch(channels, given, str(table.dtype).removeprefix("torch."))  # or there is nothing to pack
        _require(before.linears[0], 3 * channels, channels)
        _require(after.linears[0], channels, channels)
        _require((table, None), (2 * window - 1) ** 2, given["num_heads"])
        packed = pack_window_attention(gain, shift, before.linears[0], after.linears[0], table, window)
        places = (*before.places, self.graph.makers[node.output[0]], *after.places)
        attributes = {**given, "epsilon_bits": epsilon_bits(before.epsilon)}
        self.add(WINDOW_ATTENTION, node, [before.input], after.output, packed, attributes, places)

    def head(self, node: onnx.NodeProto, before: Found) -> None:
        """Adds the layer norm before an operator, with the projection if any."""
        from .half_blocks import pack_norm, pack_norm_projection

        gain, shift = before.norm
        attributes = {"epsilon_bits": epsilon_bits(before.epsilon)}
        if not before.linears:
            packed = pack_norm(gain, shift)
            self.add(NORM, node, [before.input], before.output, packed, attributes, before.places)
            return
        (linear,) = before.linears
        _require(linear, len(linear[0]), len(gain))
        packed, attributes = pack_norm_projection(gain, shift, *linear), {"out_channels": len(linear[0]), **attributes}
        self.add(NORM_PROJECTION, node, [before.input], before.output, packed, attributes, before.places)

    def tail(self, node: onnx.NodeProto, after: Found | None, mlp: Found) -> None:
        """Adds what goes token by token after an operator: the projection, if it is still there, and the MLP."""
        from .half_blocks import pack_token_tail

        (gain, shift), (first, second) = mlp.norm, mlp.linears
        channels, hidden = len(gain), len(first[0])
        _require(first, hidden, channels)
        _require(second, channels, hidden)
        attributes = {"projected": 0, "rectified": 0, "epsilon_bits": epsilon_bits(mlp.epsilon)}
        images, places = [mlp.input, mlp.input], mlp.places
        if after:
            _require(after.linears[0], channels, channels)
            attributes |= {"projected": 1, "rectified": int(after.rectified)}
            images, places = [node.output[0], after.input], (*after.places, *mlp.places)
        packed = pack_token_tail(after.linears[0] if after else None, gain, shift, first, second)
        self.add(TOKEN_TAIL, node, images, mlp.output, packed, attributes, places)

    def add(
        self,
        entry: HalfBlock,
        node: onnx.NodeProto,
        images: Sequence[str],
        output: str,
        packed: Sequence[Tensor],
        attributes: Mapping[str, int],
        places: Sequence[int],
    ) -> None:
        """Adds a half block.

        Args:
            entry: Which.
            node: The operator's node around which it lies.
            images: The features that it reads.
            output: The tensor that it makes.
            packed: Its weights.
            attributes: Its attributes.
            places: Where the nodes stand that it takes the place of.

        Raises:
            NoKernel: It has no kernel for them; nothing is added.
        """
        import onnx

        result = [] if "out_channels" in attributes else [output]  # which has other channels
        shape, kind = self.graph.features(*images, *result)
        numbers = onnx.helper.tensor_dtype_to_np_dtype(kind)
        if any(str(weight.dtype) != f"torch.{numbers}" for weight in packed):
            raise NoKernel(f"half blocks: features are {numbers}, and not all weights are")
        entry.launch([shape] * len(images) + [tuple(weight.shape) for weight in packed], attributes, str(numbers))
        name = f"{node.name or node.output[0]}.{entry.name}"
        names = [f"{name}.{given}" for given in entry.inputs[len(images) :]]
        self.weights += [
            onnx.numpy_helper.from_array(weight.float().numpy().astype(numbers), given)
            for given, weight in zip(names, packed, strict=True)
        ]
        more: dict[str, Any] = {**attributes, NAMESPACE_ATTRIBUTE: DOMAIN}
        made = onnx.helper.make_node(entry.name, [*images, *names], [output], name, domain=DOMAIN, **more)
        self.made.append((made, tuple(sorted(places))))

    def write(self, graph: onnx.GraphProto) -> None:
        """Puts the half blocks into a copy of the graph, each where the last of its nodes stands."""
        instead = {places[-1]: node for node, places in self.made}
        gone = {place for _, places in self.made for place in places}
        every = self.graph.nodes
        nodes = [instead.get(place, node) for place, node in enumerate(every) if place in instead or place not in gone]
        made = {name for node in nodes for name in node.output}
        inner = {name for place in gone for name in every[place].output} - made
        values = [value for value in graph.value_info if value.name not in inner]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.value_info.extend(values)
        graph.initializer.extend(self.weights)


def _require(linear: tuple[Tensor, Tensor | None], outputs: int, inputs: int) -> None:
    """Refuses (NoKernel) a linear layer of another size; its bias fits its weight already."""
    if tuple(linear[0].shape) != (outputs, inputs):
        raise NoKernel(f"half blocks: a weight of {[outputs, inputs]} is wanted, got {list(linear[0].shape)}")
