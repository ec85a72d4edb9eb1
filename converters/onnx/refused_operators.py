"""Operators that have no spiking meaning, and why."""

__all__ = ["REFUSED"]

SMOOTH = "a smooth activation; neurons that spike compute ReLU: train the model with it"
BOUNDED = "an activation of another form than ReLU: train the model with it"
RECURRENT = "recurrent: the model keeps a state between steps of its own"
ATTENTION = "attention multiplies what depends on the image by itself"
STATISTICS = "normalises by statistics of each image, which no fixed weights do: use BatchNormalization"
PRODUCT = "computes from the image what no fixed weights and ReLU compute"
CONTROL = "holds a graph of its own; control flow is not unfolded: export the model without it"
INTEGER = "an integer operator: export the model with QuantizeLinear and DequantizeLinear instead (QDQ)"
RANDOM = "random"
JOIN = "joins or splits tensors; of branches only sums are read"
PLACES = "moves numbers to places that depend on them, or makes them anew"

_REASONS = {
    SMOOTH: "Celu Elu Erf Exp Gelu HardSwish Mish Selu Softplus Softsign Swish SwiGLU Tanh",
    BOUNDED: "Abs HardSigmoid Hardmax Shrink Sign ThresholdedRelu",
    RECURRENT: "CausalConvWithState GRU LSTM LinearAttention RNN",
    ATTENTION: "Attention RotaryEmbedding",
    STATISTICS: (
        "GroupNormalization InstanceNormalization LRN LayerNormalization LpNormalization MeanVarianceNormalization "
        "RMSNormalization"
    ),
    PRODUCT: (
        "Cos Einsum GlobalLpPool LpPool Pow Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMin "
        "ReduceProd ReduceSum ReduceSumSquare Sin Sqrt"
    ),
    CONTROL: "If Loop Scan SequenceMap",
    INTEGER: "ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul",
    RANDOM: "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    JOIN: "Concat Mean Split Tile",
    PLACES: "DeformConv GridSample MaxRoiPool MaxUnpool NonMaxSuppression Resize RoiAlign TopK Upsample Where",
    "a transposed convolution, which makes maps larger: not a classifier's": "ConvTranspose",
}

REFUSED = {("", name): reason for reason, names in _REASONS.items() for name in names.split()}
"""Why, by `(domain, operator)`."""
