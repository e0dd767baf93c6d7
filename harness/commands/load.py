"""`ptq-bench load`: rebuild a quantized model that a run saved, and see that it works."""

import math

import torch
from rich.console import Console
from torch import Tensor, nn

from harness.bookkeeping.words import scheme_label
from harness.checkpoints.linear import QuantizedLinear
from harness.checkpoints.saved_runs import LoadedRun, load_run
from harness.commands.options import Options
from harness.config.groups import Bos, Device, EvalConfig
from harness.config.run_config import typed
from harness.data.tokens import encode
from harness.evaluation.evaluate import evaluate
from harness.evaluation.subject import Subject
from harness.foundation.errors import UserError
from harness.foundation.resources import device_name
from harness.models.tokenizers import suited_bos
from harness.records.record import number
from methods.blocks.activations import ActivationQuantizer
from methods.blocks.attention_operands import AttentionOperands
from methods.contracts.scheme import Scheme

console = Console(highlight=False, soft_wrap=True)
PROBE = "The same words give the same logits."
SAME = 1e-3  # relative difference of two evaluations that another device or another version of torch explains
OFF = {  # in records that lack them
    **{"scale_bits": None, "scale_group_size": 16, "outlier_ratio": 0.0, "outlier_structure": "unstructured"},
    **{"act_bits": None, "act_symmetric": False, "act_range": "token", "kv_bits": None},
}


def describe(run: LoadedRun) -> list[tuple[str, str]]:
    """What the model is, line by line."""
    record, numel = run.record, sum(linear.weight.numel() for linear in run.linears())
    kinds = sorted({linear.layout["kind"] for linear in run.linears()})
    lines = [("checkpoint", str(run.directory))]
    if record:
        scheme = typed(Scheme, OFF | record["scheme"], "scheme")
        lines += [
            ("run", record["run_key"]),
            ("model", f"{record['model']['name']} ({record['model']['id']})"),
        ]
        lines += [("method", record["method"]["name"]), ("scheme", scheme_label(scheme))]
        share = record.get("outlier_share")
        lines += [("outliers", f"{100 * share:.3g} % of the weights")] if share else []
    lines.append(("linears", f"{len(run.linears())}, {numel:,} weights, stored as {' and '.join(kinds)}"))
    lines.append(("bits per weight", f"{run.bits_per_weight():.4f}, weighed"))
    lines += [("activations", words) for words in [activations(run.model)] if words]
    return [*lines, ("size on disk", f"{run.bytes_on_disk() / 1e6:,.1f} MB, embeddings and norms included")]


def activations(model: nn.Module) -> str:
    """How a model rounds what flows through it, e.g. "4 bits per token, keys and values 8 bits per token"; ""
    where all is float.
    """
    inputs = {_words(module.activation) for module in model.modules() if isinstance(module, QuantizedLinear)}
    cached = {
        _words(pair)
        for module in model.modules()
        if isinstance(module, AttentionOperands)
        for pair in (module.key, module.value)
    }
    if not cached | inputs - {"float"}:
        return ""
    said = " or ".join(sorted(inputs))
    return said if cached == inputs else f"{said}, keys and values {' or '.join(sorted(cached)) or 'float'}"


def _words(quantizer: ActivationQuantizer | None) -> str:
    return "float" if quantizer is None else str(quantizer.format)


@torch.no_grad()
def probe(run: LoadedRun, text: str) -> Tensor:
    """Logits (tokens, vocabulary) of a text.

    Raises:
        UserError: one of them is not finite.
    """
    tokens = torch.tensor([_prompt(run, text)], device=run.model.device)
    logits = run.model(tokens, use_cache=False).logits[0]
    if not torch.isfinite(logits).all():
        raise UserError(
            f"{run.directory}: the logits of {text!r} are not finite; the run quantized the model to death"
        )
    return logits


@torch.no_grad()
def continued(run: LoadedRun, text: str, tokens: int) -> str:
    """The text and its greedy continuation by so many tokens."""
    given = torch.tensor([_prompt(run, text)], device=run.model.device)
    grown = run.model.generate(
        input_ids=given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return run.tokenizer.decode(grown[0], skip_special_tokens=True)


def _prompt(run: LoadedRun, text: str) -> list[int]:
    """Token ids of a text that the model is to go on from, with the BOS that it was measured with."""
    bos = (
        Bos[run.record["model"]["bos"]]
        if run.record
        else suited_bos(run.model.config.model_type, run.tokenizer)
    )
    return encode(text, run.tokenizer, bos) or [0]


def check(run: LoadedRun, mirror: str | None = None) -> list[tuple[str, float, float, bool]]:
    """(metric, value now, value in the record, whether they agree) of everything the record holds, by its own
    protocol.

    Raises:
        UserError: there is no record to compare with, or the data cannot be had.
    """
    if not run.record:
        raise UserError(
            f"{run.directory}: --check needs the record of the run; load the directory of the run, "
            "not a copy of its checkpoint"
        )
    config = typed(EvalConfig, run.record["eval"] | {"mirror": mirror}, "eval")
    model = run.record["model"]
    found = evaluate(Subject(run.model, run.tokenizer, Bos[model["bos"]], model["dtype"]), config).metrics
    rows = []
    for name, metric in run.record["metrics"].items():
        old, new = number(metric["value"]), found[name].value
        close = old == new or math.isclose(old, new, rel_tol=SAME)
        same = close and str(found[name].protocol) == metric["protocol"]
        rows.append((name, new, old, same))
    return rows


def main(argv: list[str]) -> int:
    """`ptq-bench load RUN`; 1 if --check finds other numbers than the record's."""
    parser = Options("load", "Rebuild a quantized model that a run saved, and see that it works.")
    parser.add_argument("run", metavar="RUN", help="a run key, the beginning of one, or a directory")
    parser.add_results("where runs are looked for")
    parser.add_argument("--device", default="auto", choices=[device.name for device in Device])
    parser.add_argument("--text", help="show how the model goes on from this text")
    parser.add_argument("--tokens", type=int, default=24, help="by how many tokens (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="evaluate again and compare with the record")
    parser.add_argument("--mirror", help="with --check: directory that replaces the hub for data sets")
    arguments = parser.parse_args(argv)
    if arguments.tokens < 1:
        raise UserError(f"--tokens {arguments.tokens}: must be at least 1")
    run = load_run(arguments.run, arguments.results, device_name(arguments.device))
    lines = describe(run)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        console.print(f"{name:<{width}}  {value}", markup=False)
    logits = probe(run, arguments.text or PROBE)
    console.print(f"{'works':<{width}}  logits of {len(logits)} tokens are finite", markup=False)
    if arguments.text:
        console.print(f"\n{continued(run, arguments.text, arguments.tokens)}", markup=False)
    return 0 if not arguments.check else _report(check(run, arguments.mirror))


def _report(rows: list[tuple[str, float, float, bool]]) -> int:
    for name, new, old, same in rows:
        verdict = "the same" if new == old else ("the same but for rounding" if same else "DIFFERENT")
        console.print(f"{name}: {new:.6g} now, {old:.6g} in the record: {verdict}", markup=False)
    return 0 if all(same for *_, same in rows) else 1
