"""The features that came with each minor version of ONNX Runtime: what `onnxruntime_needs` compares with.

`python -m tests.support.runtimes table` writes this file from the kernels and definitions of the libraries themselves;
`tests/builders/engines/test_onnxruntime_versions.py` compares both. A line has a version, an import or an operator, and
what is new of it: `ir/11`; `ai.onnx/23`; `ai.onnx:Conv/22`, an operator by the version of its definition; `@name`, an
attribute; `#10` and `%4`, a number of inputs and outputs; `:T=int8`, a type.
"""

from __future__ import annotations

from collections.abc import Mapping

_TABLE = """
1.19 ai.onnx.ml/5
1.19 ai.onnx/21
1.19 com.microsoft/1
1.19 ir/10
1.20 ai.onnx:ArgMax/11 :T=int64
1.20 ai.onnx:ArgMax/12 :T=int64
1.20 ai.onnx:ArgMax/13 :T=int64
1.20 ai.onnx:ArgMax/1 :T=double :T=int64
1.20 ai.onnx:ArgMin/11 :T=int64 :T=int8 :T=uint8
1.20 ai.onnx:ArgMin/12 :T=int64 :T=int8 :T=uint8
1.20 ai.onnx:ArgMin/13 :T=int64 :T=int8 :T=uint8
1.20 ai.onnx:ArgMin/1 :T=double :T=int64 :T=int8 :T=uint8
1.20 ai.onnx:QLinearMatMul/21
1.20 ai.onnx:ReduceL1/11 :T=double
1.20 ai.onnx:ReduceL1/13 :T=double
1.20 ai.onnx:ReduceL1/18 :T=double
1.20 ai.onnx:ReduceL1/1 :T=double
1.20 ai.onnx:ReduceL2/11 :T=double
1.20 ai.onnx:ReduceL2/13 :T=double
1.20 ai.onnx:ReduceL2/18 :T=double
1.20 ai.onnx:ReduceL2/1 :T=double
1.20 ai.onnx:ReduceLogSum/11 :T=double
1.20 ai.onnx:ReduceLogSum/13 :T=double
1.20 ai.onnx:ReduceLogSum/18 :T=double
1.20 ai.onnx:ReduceLogSum/1 :T=double
1.20 ai.onnx:ReduceMean/11 :T=int64
1.20 ai.onnx:ReduceMean/13 :T=int64
1.20 ai.onnx:ReduceMean/18 :T=int64
1.20 ai.onnx:ReduceMean/1 :T=int64
1.20 ai.onnx:ReduceProd/11 :T=double
1.20 ai.onnx:ReduceProd/13 :T=double
1.20 ai.onnx:ReduceProd/18 :T=double
1.20 ai.onnx:ReduceProd/1 :T=double
1.20 com.microsoft:DecoderMaskedMultiHeadAttention/1
1.20 com.microsoft:DynamicTimeWarping/1
1.20 com.microsoft:GatherBlockQuantized/1
1.20 com.microsoft:GroupQueryAttention/1 @smooth_softmax @softcap
1.20 com.microsoft:UnfoldTensor/1
1.21 ai.onnx.ml:TreeEnsemble/5
1.21 ai.onnx/22
1.21 ai.onnx:Acos/22
1.21 ai.onnx:Acosh/22
1.21 ai.onnx:Add/13 :T=uint32 :T=uint64
1.21 ai.onnx:Add/14 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:Add/7 :T=uint32 :T=uint64
1.21 ai.onnx:Asin/22
1.21 ai.onnx:Asinh/22
1.21 ai.onnx:Atan/22
1.21 ai.onnx:Atanh/22
1.21 ai.onnx:AveragePool/22
1.21 ai.onnx:Conv/22
1.21 ai.onnx:ConvTranspose/22
1.21 ai.onnx:Cos/22
1.21 ai.onnx:Cosh/22
1.21 ai.onnx:DepthToSpace/11 :T=uint8
1.21 ai.onnx:DepthToSpace/13 :T=uint8
1.21 ai.onnx:Det/22
1.21 ai.onnx:Div/13 :T=uint32 :T=uint64
1.21 ai.onnx:Div/14 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:Div/7 :T=uint32 :T=uint64
1.21 ai.onnx:Dropout/22
1.21 ai.onnx:Elu/22
1.21 ai.onnx:Equal/11 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:Equal/13 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:Equal/19 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:EyeLike/22
1.21 ai.onnx:GRU/22
1.21 ai.onnx:GlobalAveragePool/22
1.21 ai.onnx:GlobalMaxPool/22
1.21 ai.onnx:Greater/13 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:Greater/9 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:GreaterOrEqual/12 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:GreaterOrEqual/16 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:GridSample/22
1.21 ai.onnx:HardSigmoid/22
1.21 ai.onnx:InstanceNormalization/22
1.21 ai.onnx:LSTM/22
1.21 ai.onnx:Less/13 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:Less/9 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:LessOrEqual/12 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:LessOrEqual/16 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:LpPool/22
1.21 ai.onnx:MaxPool/22
1.21 ai.onnx:MaxUnpool/22
1.21 ai.onnx:Mul/13 :T=uint32 :T=uint64
1.21 ai.onnx:Mul/14 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:Mul/7 :T=uint32 :T=uint64
1.21 ai.onnx:Neg/13 :T=int16
1.21 ai.onnx:Neg/6 :T=int16
1.21 ai.onnx:RNN/22
1.21 ai.onnx:Round/22
1.21 ai.onnx:Selu/22
1.21 ai.onnx:Sin/22
1.21 ai.onnx:Sinh/22
1.21 ai.onnx:Softplus/22
1.21 ai.onnx:Softsign/22
1.21 ai.onnx:Sub/13 :T=uint32 :T=uint64
1.21 ai.onnx:Sub/14 :T=int16 :T=int8 :T=uint16 :T=uint32 :T=uint64 :T=uint8
1.21 ai.onnx:Sub/7 :T=uint32 :T=uint64
1.21 ai.onnx:Tan/22
1.21 ai.onnx:ThresholdedRelu/22
1.22 com.microsoft:DecoderMaskedMultiHeadAttention/1 :QK=float
1.22 com.microsoft:GatherBlockQuantized/1 :T1=uint8
1.22 com.microsoft:GroupQueryAttention/1 #10 #11
1.22 com.microsoft:MultiHeadAttention/1 #10 #9 %4 :QK=float
1.23 ai.onnx/23
1.23 ai.onnx:Attention/23
1.23 ai.onnx:Cast/21 :T1=int4 :T1=uint4 :T2=int4 :T2=uint4
1.23 ai.onnx:Cast/23
1.23 ai.onnx:ConstantOfShape/23
1.23 ai.onnx:DequantizeLinear/23
1.23 ai.onnx:Flatten/23
1.23 ai.onnx:Identity/23
1.23 ai.onnx:If/23
1.23 ai.onnx:Loop/23
1.23 ai.onnx:Pad/23
1.23 ai.onnx:QuantizeLinear/23
1.23 ai.onnx:RMSNormalization/23
1.23 ai.onnx:Reshape/23
1.23 ai.onnx:RotaryEmbedding/23
1.23 ai.onnx:Scan/23
1.23 ai.onnx:Shape/23
1.23 ai.onnx:Size/23
1.23 ai.onnx:SplitToSequence/11 :T=bool
1.23 ai.onnx:Squeeze/23
1.23 ai.onnx:Transpose/23
1.23 ai.onnx:Unsqueeze/23
1.23 com.microsoft:GatherBlockQuantized/1 @bits
1.23 com.microsoft:GroupQueryAttention/1 #12 %4 @qk_output
1.23 com.microsoft:QMoE/1
1.23 ir/11
1.24 ai.onnx/24
1.24 ai.onnx/25
1.24 ai.onnx:Attention/24
1.24 ai.onnx:Cast/24
1.24 ai.onnx:Cast/25
1.24 ai.onnx:ConstantOfShape/24
1.24 ai.onnx:ConstantOfShape/25
1.24 ai.onnx:ConvInteger/10 :T1=int8 :T2=int8
1.24 ai.onnx:DequantizeLinear/24
1.24 ai.onnx:DequantizeLinear/25
1.24 ai.onnx:Flatten/24
1.24 ai.onnx:Flatten/25
1.24 ai.onnx:Identity/24
1.24 ai.onnx:Identity/25
1.24 ai.onnx:If/24
1.24 ai.onnx:If/25
1.24 ai.onnx:Loop/24
1.24 ai.onnx:Loop/25
1.24 ai.onnx:Max/12 :T=int8 :T=uint8
1.24 ai.onnx:Max/13 :T=int8 :T=uint8
1.24 ai.onnx:MemcpyFromHost/1
1.24 ai.onnx:MemcpyToHost/1
1.24 ai.onnx:Min/12 :T=int8 :T=uint8
1.24 ai.onnx:Min/13 :T=int8 :T=uint8
1.24 ai.onnx:Pad/24
1.24 ai.onnx:Pad/25
1.24 ai.onnx:QuantizeLinear/23 :T2=float
1.24 ai.onnx:QuantizeLinear/24
1.24 ai.onnx:QuantizeLinear/25
1.24 ai.onnx:Reshape/24
1.24 ai.onnx:Reshape/25
1.24 ai.onnx:Scan/24
1.24 ai.onnx:Scan/25
1.24 ai.onnx:Shape/24
1.24 ai.onnx:Shape/25
1.24 ai.onnx:Size/24
1.24 ai.onnx:Size/25
1.24 ai.onnx:SplitToSequence/24
1.24 ai.onnx:Squeeze/24
1.24 ai.onnx:Squeeze/25
1.24 ai.onnx:TopK/24
1.24 ai.onnx:Transpose/24
1.24 ai.onnx:Transpose/25
1.24 ai.onnx:Unsqueeze/24
1.24 ai.onnx:Unsqueeze/25
1.24 com.microsoft:MoE/1
1.24 com.microsoft:MultiHeadAttention/1 :QK=bfloat16
1.24 com.microsoft:QMoE/1 #12 #13 #14 @block_size
1.24 ir/12
1.24 ir/13
1.25 ai.onnx/26
1.25 ai.onnx:BitCast/26
1.25 ai.onnx:CumProd/26
1.25 ai.onnx:DeformConv/19
1.25 ai.onnx:DeformConv/22
1.25 ai.onnx:LpNormalization/22
1.25 ai.onnx:TensorScatter/24
1.25 com.microsoft:GroupQueryAttention/1 #13 #14 :T_CACHE=bfloat16 :T_CACHE=float :T_CACHE=float8e4m3fn
1.25 com.microsoft:GroupQueryAttention/1 :T_CACHE=int8 :T_CACHE=uint8 :T_KV_SCALE=float @k_quant_type
1.25 com.microsoft:GroupQueryAttention/1 @kv_cache_bit_width @v_quant_type
1.25 com.microsoft:QMoE/1 #15
1.26 ai.onnx:TopK/11 :T=int16 :T=int8 :T=uint8
1.26 ai.onnx:TopK/24 :T=int16 :T=int8 :T=uint8
1.26 com.microsoft:CausalConvWithState/1
1.26 com.microsoft:FusedMatMul/1 :T=double
1.26 com.microsoft:LinearAttention/1
1.27 ai.onnx:Cast/24 :T1=float8e8m0 :T2=float8e8m0
1.27 ai.onnx:Cast/25 :T1=float8e8m0 :T2=float8e8m0
1.27 com.microsoft:QMoE/1 #16 #17 #18 #19 #20 #21 :T4=float @quant_type
1.28 ai.onnx:DepthToSpace/11 :T=int8
1.28 ai.onnx:DepthToSpace/13 :T=int8
1.28 ai.onnx:Range/27
1.28 ai.onnx:SpaceToDepth/13 :T=int8 :T=uint8
1.28 ai.onnx:SpaceToDepth/1 :T=int8 :T=uint8
1.28 com.microsoft:GroupQueryAttention/1 #15 #16 @qk_norm_epsilon
1.28 com.microsoft:MatMulNBits/1 @weight_prepacked
1.28 com.microsoft:QMoE/1 @weights_prepacked
1.29 ai.onnx:Cos/22 :T=double
1.29 ai.onnx:Cos/7 :T=double
1.29 ai.onnx:Trilu/14 :T=int32
1.29 com.microsoft:CausalConvWithState/1 @state_window
1.29 com.microsoft:GroupQueryAttention/1 @sliding_window_cache
1.29 com.microsoft:LinearAttention/1 @state_window
1.29 com.microsoft:MRotaryEmbedding/1
1.30 ai.onnx:LayerNormalization/17 :T=bfloat16
1.30 ai.onnx:LayerNormalization/1 :T=bfloat16 :V=bfloat16
1.30 ai.onnx:SimplifiedLayerNormalization/1 :T=bfloat16 :V=bfloat16
1.30 com.microsoft:CausalConvWithState/1 @channels_last @dilation
1.30 com.microsoft:EngramGate/1
1.30 com.microsoft:GatedAdd/1
1.30 com.microsoft:GatedRMSNorm/1
1.30 com.microsoft:GroupQueryAttention/1 @causal
1.30 com.microsoft:LinearAttentionGate/1
1.30 com.microsoft:NGramHashMapping/1
1.30 com.microsoft:SkipLayerNormalization/1 :T=bfloat16
1.30 com.microsoft:SkipSimplifiedLayerNormalization/1 :T=bfloat16
1.31 ai.onnx:Where/16 :T=int8 :T=uint32
1.31 ai.onnx:Where/9 :T=int8 :T=uint32
1.31 com.microsoft:BranchwiseRMSNorm/1
1.31 com.microsoft:EngramGate/1 #6 %2
1.31 com.microsoft:GatedRMSNorm/1 @activation
1.31 com.microsoft:GatherBlockQuantized/1 :T1=float4e2m1 :T1=float8e4m3fn :T1=float8e4m3fnuz :T1=float8e5m2
1.31 com.microsoft:GatherBlockQuantized/1 :T1=float8e5m2fnuz
1.31 com.microsoft:HyperConnectionPostMix/1
1.31 com.microsoft:HyperConnectionPreMix/1
1.31 com.microsoft:NGramHashMapping/1 #5 #6 #7 @reset_on_eos
1.31 com.microsoft:QMoE/1 @accuracy_level @fc1_expert_weight_bits @fc2_expert_weight_bits
1.31 com.microsoft:QMoE/1 @fc3_expert_weight_bits
1.31 com.microsoft:ScaledSiLU/1
1.31 com.microsoft:VarlenNGramHashMapping/1
1.32 ai.onnx/27
1.32 ai.onnx/28
1.32 ai.onnx:BitShift/11 :T=uint16
1.32 ai.onnx:BitShift/28
1.32 ai.onnx:Cast/28
1.32 ai.onnx:Celu/28
1.32 ai.onnx:Compress/28
1.32 ai.onnx:DepthToSpace/28
1.32 ai.onnx:Einsum/28
1.32 ai.onnx:Mod/28
1.32 ai.onnx:OneHot/28
1.32 ai.onnx:Pad/21 :T=bfloat16
1.32 ai.onnx:Pad/23 :T=bfloat16
1.32 ai.onnx:Pad/24 :T=bfloat16
1.32 ai.onnx:Pad/25 :T=bfloat16
1.32 ai.onnx:ReverseSequence/28
1.32 ai.onnx:SpaceToDepth/28
1.32 ai.onnx:Unique/28
1.32 com.microsoft:CausalConvWithState/1 %3 @input_channel_offset @input_channels @state_channels_last
1.32 com.microsoft:CausalConvWithState/1 @state_length @state_update_capacity
1.32 com.microsoft:GatedAdd/1 #4
1.32 com.microsoft:GatedDeltaNet/1
1.32 com.microsoft:GatedRMSNorm/1 :T=bfloat16
1.32 com.microsoft:GatherPacked/1
1.32 com.microsoft:GroupQueryAttention/1 #17 @k_norm_epsilon @q_norm_epsilon
1.32 com.microsoft:LinearAttentionGate/1 :T=bfloat16
1.32 com.microsoft:MoE/1 @swiglu_limit_after_activation
1.32 com.microsoft:MoEGroupRouter/1
1.32 com.microsoft:QMoE/1 :T2=bfloat16 :T2=float8e4m3fn :T2=float8e8m0 :T=bfloat16
1.32 com.microsoft:QMoE/1 @swiglu_limit_after_activation
1.32 com.microsoft:VarlenCausalConvWithState/1
1.32 ir/14
"""
_ROWS = [line.split() for line in _TABLE.split("\n") if line]
# The oldest version that is supported, as pyproject.toml says for the extra `onboard`, and the newest that is known.
OLDEST, NEWEST = _ROWS[0][0], _ROWS[-1][0]
# Feature -> the minor version that it came with; what is not here, the oldest has.
CAME: Mapping[str, str] = {row[1] + part: row[0] for row in _ROWS if len(row) > 1 for part in (row[2:] or [""])}
# What a network imports -> the highest version of it that any of these libraries takes.
HIGHEST: dict[str, int] = {}
for _name, _, _number in (feature.partition("/") for feature in CAME if ":" not in feature):
    HIGHEST[_name] = max(HIGHEST.get(_name, 0), int(_number))
