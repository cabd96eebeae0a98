"""The decoding step of a GPT in plain PyTorch: pre-norm blocks, a cache that is allocated once, the framework's own attention.

Parameter names are those of `rqtransformer.Stack`. This is not a published form with its habits but the usual fast one: keys
and values are written in place and `scaled_dot_product_attention` reads the part of the cache that is filled.
"""

import torch
import torch.nn.functional as F

from rqtransformer import Stack


class Decoder:
    """`stack` and the keys and values of up to `capacity` positions, [layers, batch, heads, capacity, head width]."""

    def __init__(self, stack, heads, batch, capacity):
        self.stack, self.heads, self.length = stack, heads, 0
        width = stack.blocks[0].ln1.normalized_shape[0]
        shape = (len(stack.blocks), batch, heads, capacity, width // heads)
        self.keys, self.values = torch.zeros(shape), torch.zeros(shape)

    def __call__(self, x):
        """The next positions [batch, length, width]."""
        end = self.length + x.shape[1]
        for block, keys, values in zip(self.stack.blocks, self.keys, self.values):
            x = x + self.attend(block.attn, block.ln1(x), keys, values, end)
            x = x + block.mlp(block.ln2(x))
        self.length = end
        return x

    def attend(self, layer, x, keys, values, end):
        batch, length, width = x.shape

        def split(y):
            return y.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        keys[:, :, self.length : end] = split(layer.key(x))
        values[:, :, self.length : end] = split(layer.value(x))
        # Several positions at once only fill an empty cache, where the causal mask is square.
        causal = length > 1
        y = F.scaled_dot_product_attention(split(layer.query(x)), keys[:, :, :end], values[:, :, :end], is_causal=causal)
        return layer.proj(y.transpose(1, 2).reshape(batch, length, width))


@torch.no_grad()
def initialize(stack, generator):
    """Matrices of deviation 1/sqrt(inputs), so that activations keep their size; biases 0, norms the identity."""
    for parameter in stack.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
    return stack


def new_stack(layers, width, heads):
    return Stack(layers, width, heads, dropout=0.0)
