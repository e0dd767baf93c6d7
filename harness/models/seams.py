"""Where the blocks of each architecture may be rewritten: tables of seams, in the order of the data flow.

They are read off the modeling files of transformers. All of these families rotate entries (i, i + rotary / 2)
of a head together. A norm whose output goes to the residual stream, such as Gemma's post_attention_layernorm,
is no seam.
"""

from collections.abc import Callable

import torch
from transformers import PreTrainedConfig

from methods.contracts.seams import Heads, MiddleSeam, NormSeam, QueryKeySeam, Seam, ValueSeam

Seams = tuple[Seam, ...]


def llama(
    norm_before_mlp: str = "post_attention_layernorm", one_plus: bool = False, head_norms: bool = False
) -> Callable[..., Seams]:
    """Llama and what descends from it: separate projections, grouped queries, a gated MLP.

    Args:
        one_plus: norms multiply by 1 + weight.
        head_norms: queries and keys pass norms before they are rotated.
    """

    def seams(config: PreTrainedConfig) -> Seams:
        config = config.get_text_config()
        width, heads = config.hidden_size, config.num_attention_heads
        size = getattr(config, "head_dim", None) or width // heads
        query, key, value = (
            Heads(f"self_attn.{name}_proj", _head_rows(count, size))
            for name, count in (
                ("q", heads),
                ("k", config.num_key_value_heads),
                ("v", config.num_key_value_heads),
            )
        )
        norms = ("self_attn.q_norm", "self_attn.k_norm") if head_norms else None
        return (
            NormSeam("input_layernorm", (query.linear, key.linear, value.linear), width, one_plus),
            QueryKeySeam(query, key, size, norms, one_plus),
            ValueSeam(value, "self_attn.o_proj", heads),
            NormSeam(norm_before_mlp, ("mlp.gate_proj", "mlp.up_proj"), width, one_plus),
            MiddleSeam("mlp.up_proj", "mlp.down_proj", config.intermediate_size),
        )

    return seams


def opt(config: PreTrainedConfig) -> Seams:
    """OPT. Norms behind the attention and the MLP (350M) feed the residual stream too, and some have nothing
    that could absorb a scale.
    """
    width, heads = config.hidden_size, config.num_attention_heads
    query, key, value = (Heads(f"self_attn.{name}_proj", _head_rows(heads, width // heads)) for name in "qkv")
    seams = (QueryKeySeam(query, key, rotary=0), ValueSeam(value, "self_attn.out_proj", heads))
    middle = _middle(config.activation_function, "fc1", "fc2", config.ffn_dim)
    if not (config.do_layer_norm_before and config.layer_norm_elementwise_affine):
        return (*seams, *middle)
    first = NormSeam("self_attn_layer_norm", (query.linear, key.linear, value.linear), width, has_bias=True)
    return (first, *seams, NormSeam("final_layer_norm", ("fc1",), width, has_bias=True), *middle)


def bloom(config: PreTrainedConfig) -> Seams:
    """Bloom: positions come as a bias of the scores, so heads are not rotated."""
    width, heads = config.hidden_size, config.num_attention_heads
    attention = _fused("self_attention", _of_each_head(heads, width // heads), heads, rotary=0)
    if config.apply_residual_connection_post_layernorm:  # the norms' outputs are the residual stream as well
        return attention
    first, second = _two_norms("self_attention", "input_layernorm", "post_attention_layernorm", width)
    return (first, *attention, second)


def gpt_neox(config: PreTrainedConfig) -> Seams:
    """GPT-NeoX, parallel or not: only the first entries of each head are rotated."""
    width, heads = config.hidden_size, config.num_attention_heads
    size = width // heads
    rotary = int(size * config.rope_parameters.get("partial_rotary_factor", 1.0))
    attention = _fused("attention", _of_each_head(heads, size), heads, rotary)
    first, second = _two_norms("attention", "input_layernorm", "post_attention_layernorm", width)
    return (
        first,
        *attention,
        second,
        *_middle(config.hidden_act, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", config.intermediate_size),
    )


def falcon(config: PreTrainedConfig) -> Seams:
    """Falcon: with its three layouts of the fused projection, and one norm or two."""
    width, heads = config.hidden_size, config.num_attention_heads
    size = width // heads
    if config.new_decoder_architecture:
        rows = _of_each_group(heads // config.num_kv_heads, config.num_kv_heads, size)
    elif config.multi_query:
        rows = _of_each_group(heads, 1, size)
    else:
        rows = _of_each_head(heads, size)
    attention = _fused("self_attention", rows, heads, rotary=0 if config.alibi else size)
    middle = _middle(config.activation, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", config.ffn_hidden_size)
    if config.new_decoder_architecture and config.num_ln_in_parallel_attn != 1:  # None means 2
        first, second = _two_norms("self_attention", "ln_attn", "ln_mlp", width)
        return (first, *attention, second, *middle)
    if config.new_decoder_architecture or config.parallel_attn:
        both = ("self_attention.query_key_value", "mlp.dense_h_to_4h")
        return (NormSeam("input_layernorm", both, width, has_bias=True), *attention, *middle)
    first, second = _two_norms("self_attention", "input_layernorm", "post_attention_layernorm", width)
    return (first, *attention, second, *middle)


def _fused(attention: str, rows: tuple[torch.Tensor, ...], heads: int, rotary: int) -> Seams:
    """The attention's seams where one linear makes queries, keys and values, at the given rows."""
    query, key, value = (Heads(f"{attention}.query_key_value", part) for part in rows)
    return QueryKeySeam(query, key, rotary), ValueSeam(value, f"{attention}.dense", heads)


def _two_norms(attention: str, first: str, second: str, width: int) -> tuple[NormSeam, NormSeam]:
    """One layer norm before the attention, one before the MLP."""
    return (
        NormSeam(first, (f"{attention}.query_key_value",), width, has_bias=True),
        NormSeam(second, ("mlp.dense_h_to_4h",), width, has_bias=True),
    )


def _middle(activation: str, up: str, down: str, width: int) -> Seams:
    """A positive factor passes a ReLU, and no other activation in use."""
    return (MiddleSeam(up, down, width),) if activation == "relu" else ()


def _head_rows(heads: int, size: int, first: int = 0, every: int | None = None) -> torch.Tensor:
    """(heads, size): heads of consecutive rows, beginning at `first` and then `every` so many rows (default:
    gapless).
    """
    return first + (every or size) * torch.arange(heads)[:, None] + torch.arange(size)


def _of_each_head(heads: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value of each head side by side: rows of the queries, of the keys, of the values."""
    query, key, value = (_head_rows(heads, size, part * size, 3 * size) for part in range(3))
    return query, key, value


def _of_each_group(shared: int, groups: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """In each group `shared` queries, then the key and the value that they share: rows of the queries, of the
    keys, of the values.
    """
    rows = _head_rows(groups * (shared + 2), size).view(groups, shared + 2, size)
    return rows[:, :-2].flatten(0, 1), rows[:, -2], rows[:, -1]
