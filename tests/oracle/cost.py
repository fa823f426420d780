"""What recorded exchanges cost, computed a second time.

    cost.py PRICES RECORDINGS

One line per recording that has usage and a price: its id, the name the price
stands under, the cost by the normal form of usage, and the cost with what only
the vendor's own report tells (cache writes kept an hour, audio), both in
micro-USD. Written without a look at the gateway's code: exact decimals over the

"""

import json
import pathlib
import re
import sys
from decimal import ROUND_HALF_UP, Decimal, getcontext

getcontext().prec = 60

VENDORS = {
    "openai": ["openai", "text-completion-openai"],
    "anthropic": ["anthropic"],
    "google": ["gemini"],
    "deepseek": ["deepseek"],
    "groq": ["groq"],
    "azure-openai": ["azure", "azure_text", "azure_ai"],
    "mistral": ["mistral", "codestral", "text-completion-codestral"],
    "openrouter": ["openrouter"],
    "together": ["together_ai"],
    "fireworks": ["fireworks_ai", "fireworks_ai-embedding-models"],
    "perplexity": ["perplexity"],
    "cohere": ["cohere", "cohere_chat"],
    "zhipu": ["zai", "bigmodel"],
    "moonshot": ["moonshot"],
    "dashscope": ["dashscope"],
    "doubao": ["volcengine"],
    "minimax": ["minimax"],
    "hunyuan": ["tencent"],
    "ollama": ["ollama"],
    "bedrock": ["bedrock", "bedrock_converse", "bedrock_mantle"],
    "xai": ["xai"],
    "cerebras": ["cerebras"],
    "nvidia": ["nvidia_nim"],
}
OWN_NAMES = {
    "google": ["gemini"],
    "azure-openai": ["azure", "azure_ai"],
    "together": ["together_ai"],
    "fireworks": ["fireworks_ai"],
    "zhipu": ["zai", "z-ai"],
    "moonshot": ["moonshotai"],
    "vertex": ["vertex_ai"],
    "xai": ["x-ai"],
    "mistral": ["mistralai"],
}
DATED = re.compile(r"^(.+?)-(?:\d{4}-\d\d-\d\d|\d{8}|\d\d-\d{4}|\d\d-\d\d|\d{4}|\d{3}|latest)$")
BILLED_BY_TOKEN = re.compile(
    r"^(?:input_cost_per_(?:audio_)?token|output_cost_per_(?:audio_|reasoning_)?token|cache_read_input_token_cost"
    r"|cache_creation_input_token_cost(?:_above_1hr)?|input_cost_per_token_cache_hit|input_cost_per_request)"
    r"(?:_above_[1-9]\d*[km]_tokens)?(?:_batches|_flex|_priority)?$"
)


def priced(model):
    """Whether a model is billed by token or request."""
    costs = {k: v for k, v in model.items() if isinstance(v, Decimal) and "cost" in k}
    ours = [v for k, v in costs.items() if BILLED_BY_TOKEN.match(k)]
    for tier in model.get("tiered_pricing", []):
        ours += [v for k, v in tier.items() if BILLED_BY_TOKEN.match(k)]
    others = any(v for k, v in costs.items() if "_cost_per_" in k and not BILLED_BY_TOKEN.match(k))
    return bool(ours) and not (others and not any(ours))


def price_list(path):
    """(vendor, name) -> model; of two, the earlier provider, with its prefix."""
    whole = json.loads(path.read_text(), parse_float=Decimal, parse_int=Decimal)
    vendor_of = {provider: (v, rank) for v, list_ in VENDORS.items() for rank, provider in enumerate(list_)}
    found = {}
    for key, model in sorted(whole.items()):
        provider = model.get("litellm_provider", "") if isinstance(model, dict) else ""
        if provider.startswith("vertex_ai"):
            provider = "vertex_ai"
        vendor, rank = ("vertex", 0) if provider == "vertex_ai" else vendor_of.get(provider, (None, 0))
        if vendor is None or key == "sample_spec" or not priced(model):
            continue
        prefix = {"fireworks_ai-embedding-models": "fireworks_ai", "azure_text": "azure"}.get(provider, provider) + "/"
        prefixed = key.startswith(prefix)
        name = key[len(prefix) :] if prefixed else key
        order = (rank, not prefixed)
        place = (vendor, name.lower().replace("@", "-"))
        if place not in found or order < found[place][0]:
            found[place] = (order, model)
    return {place: model for place, (_, model) in found.items()}


def names(vendor, model):
    whole = model.lower().replace("@", "-")
    first, slash, rest = whole.partition("/")
    bare = rest if slash and first in ["models", vendor, *OWN_NAMES.get(vendor, [])] else whole
    list_ = [whole, bare]
    if bare.startswith("ft:"):
        list_.append(":".join(bare.split(":")[:2]))
    else:
        list_.append(bare.split(":")[0])
    return list_ + [DATED.match(name).group(1) for name in list_ if DATED.match(name)]


def rate(model, field, prompt):
    """The field for a prompt of that length: the highest threshold below it."""
    best = (Decimal(-1), None)
    if field in model:
        best = (Decimal(0), model[field])
    for key, value in model.items():
        match = re.fullmatch(re.escape(field) + r"_above_(\d+)([km])_tokens", key)
        if match:
            above = Decimal(match[1]) * (1000 if match[2] == "k" else 1_000_000)
            if prompt > above and above > best[0]:
                best = (above, value)
    for tier in model.get("tiered_pricing", []):
        above = tier["range"][0]
        if field in tier and (above == 0 or prompt > above) and above >= best[0]:
            best = (above, tier[field])
    return best[1]


def first(*values):
    return next((value for value in values if value is not None), None)


def cost(model, use):
    """Exact USD as micro-USD; None when something used has no price."""
    prompt = use["input"]
    of = lambda field: rate(model, field, prompt)  # noqa: E731
    read, write, hour, audio = use["cached"], use["write"], use["hour"], use["audio_in"]
    text_in = of("input_cost_per_token")
    text_out = of("output_cost_per_token")
    written = first(of("cache_creation_input_token_cost"), text_in)
    spoken = min(use["audio_out"], use["output"])
    thought = min(use["reasoning"], use["output"] - spoken)
    parts = [
        (max(0, prompt - read - write - audio), text_in),
        (read, first(of("cache_read_input_token_cost"), of("input_cost_per_token_cache_hit"), text_in)),
        (write - hour, written),
        (hour, first(of("cache_creation_input_token_cost_above_1hr"), written)),
        (audio, first(of("input_cost_per_audio_token"), text_in)),
        (use["output"] - spoken - thought, text_out),
        (thought, first(of("output_cost_per_reasoning_token"), text_out)),
        (spoken, first(of("output_cost_per_audio_token"), text_out)),
        (1, first(of("input_cost_per_request"), Decimal(0))),
    ]
    if any(units and price is None for units, price in parts):
        return None
    total = sum(units * price for units, price in parts if units)
    return int((Decimal(total) * 1_000_000).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def main():
    prices = price_list(pathlib.Path(sys.argv[1]))
    for path in sorted(pathlib.Path(sys.argv[2]).glob("*/*/meta.json")):
        meta = json.loads(path.read_text())
        expected, raw, request = meta["expected"], meta.get("raw_usage"), meta.get("request")
        raw = raw if isinstance(raw, dict) else {}
        request = request if isinstance(request, dict) else {}
        model = expected["model"] or request.get("model") or ""
        if expected["input_tokens"] is None and expected["output_tokens"] is None:
            continue
        vendor = meta["vendor"]
        name = next((n for n in names(vendor, model) if (vendor, n) in prices), None)
        if name is None:
            continue
        use = {
            "input": expected["input_tokens"] or 0,
            "cached": expected["cached_input_tokens"] or 0,
            "write": expected["cache_write_tokens"] or 0,
            "output": expected["output_tokens"] or 0,
            "reasoning": expected["reasoning_tokens"] or 0,
            "hour": 0,
            "audio_in": 0,
            "audio_out": 0,
        }
        told = dict(use)
        told["hour"] = (raw.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0
        if vendor != "mistral":  # whose prompt_tokens leave audio out
            told["audio_in"] = (raw.get("prompt_tokens_details") or {}).get("audio_tokens") or 0
            told["audio_out"] = (raw.get("completion_tokens_details") or {}).get("audio_tokens") or 0
        both = [cost(prices[vendor, name], counts) for counts in (use, told)]
        print(meta["id"], vendor, name, *("-" if micros is None else micros for micros in both), sep="\t")


if __name__ == "__main__":
    main()
