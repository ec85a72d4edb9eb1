"""Operators that cannot be converted: the reason for each, and what to use instead."""

SMOOTH = "a smooth function, which spiking neurons cannot compute: train the model with ReLU instead"
BOUNDED = "a function that spiking neurons cannot compute: train the model with ReLU instead"
RECURRENT = "a recurrent layer, which keeps a state between its own steps: use Conv or dense layers"
ATTENTION = "attention, which multiplies two tensors that depend on the image: use Conv or dense layers"
STATISTICS = "normalises by statistics of each image, which fixed weights cannot do: use BatchNormalization"
FUNCTION = "not supported on values that depend on the image: use Conv, Gemm, MatMul, pooling, Add and ReLU"
CONTROL = "control flow, whose branches are not read: export the model without it"
QONNX = (
    "quantisation of QONNX, which is not supported: export with QuantizeLinear and DequantizeLinear instead (in "
    "Brevitas: QCDQ)"
)
CLASSIFIER = "must have an intercept for each class, and post_transform NONE, SOFTMAX or LOGISTIC"
RANDOM = "draws random numbers, which a converted network cannot do: export the model in eval mode"
SAMPLING = "resamples, sorts or selects values, which is not supported: use Conv or pooling, or resize the images"

_REASONS = {
    SMOOTH: "Celu Elu Erf Exp Gelu HardSwish Mish Selu Softplus Softsign Swish SwiGLU Tanh",
    BOUNDED: "Abs HardSigmoid Hardmax Shrink Sign ThresholdedRelu",
    RECURRENT: "CausalConvWithState GRU LSTM LinearAttention RNN",
    ATTENTION: "Attention RotaryEmbedding",
    STATISTICS: (
        "GroupNormalization InstanceNormalization LRN LayerNormalization LpNormalization MeanVarianceNormalization "
        "RMSNormalization"
    ),
    FUNCTION: (
        "Cos Einsum GlobalLpPool LpPool Pow Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMin "
        "ReduceProd ReduceSumSquare Sin Sqrt"
    ),
    CONTROL: "If Loop Scan SequenceMap",
    RANDOM: "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    SAMPLING: "DeformConv GridSample MaxRoiPool MaxUnpool NonMaxSuppression RoiAlign TopK",
}

_QONNX_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas")

REFUSED = {
    **{("", name): reason for reason, names in _REASONS.items() for name in names.split()},
    **{(domain, name): QONNX for domain in _QONNX_DOMAINS for name in ("Quant", "BipolarQuant", "Trunc")},
    ("ai.onnx.ml", "LinearClassifier"): CLASSIFIER,
    ("ai.onnx.ml", "Normalizer"): STATISTICS,
}
"""Reason, with advice, by `(domain, operator)`."""
