"""What an SAE reads, without being told: what its files say, and where they are silent its release.

Scaling is not part of it: activations are collected as the model has them, and the SAE's own
encoder scales them.
"""

from __future__ import annotations

import re

from saeaudit.dictionary import Weights
from saeaudit.sample import SAMPLES
from saeaudit.site import UNKNOWN, Site
from saeaudit.sources.releases import added_releases, builtin_releases
from saeaudit.sources.sae import Sae

SAMPLED = Site("sentence-transformers/all-MiniLM-L6-v2", "encoder.layer.2:out", 128, "drop")
"""What the bundled SAEs read: the hidden state after three layers."""
TRANSFORMER_LENS: tuple[tuple[str, str], ...] = (
    (r"gpt2-small", "openai-community/gpt2"),
    (r"(gpt2(-medium|-large|-xl)?)", r"openai-community/\1"),
    (r"(pythia-.+)", r"EleutherAI/\1"),
    (r"mistral-7b", "mistralai/Mistral-7B-v0.1"),
    (r"(gemma-.+)", r"google/\1"),
    (r"qwen(2|2\.5|3)-([\d.]+)b(.*)", r"Qwen/Qwen\1-\2B\3"),
    (r"(Llama-.+)", r"meta-llama/\1"),
)
"""TransformerLens's short names for models, and their ids on the hub."""


def hub_id(model: str) -> str:
    """A model's id on the hub, by that or by TransformerLens's name for it.

    >>> hub_id("gpt2-small"), hub_id("pythia-70m-deduped"), hub_id("google/gemma-2-2b")
    ('openai-community/gpt2', 'EleutherAI/pythia-70m-deduped', 'google/gemma-2-2b')
    """
    for pattern, repository in TRANSFORMER_LENS:
        match = re.fullmatch(pattern, model)
        if match:
            return match.expand(repository)
    return model


def site_of(sae: Sae, weights: Weights) -> Site:
    """What is known of the activations that an SAE reads; `Site.model` is an id on the hub.

    Args:
        sae: a resolved target.
        weights: what was read of it.
    """
    site = weights.site.over(_released(sae))
    if sae.id in SAMPLES:
        site = SAMPLED
    return Site(model=site.model and hub_id(site.model)).over(site)


def _released(sae: Sae) -> Site:
    """What the releases say whose repository the SAE lies in, the user's before those that ship."""
    site = UNKNOWN
    if sae.remote is None:
        return site
    uri = f"hf://{sae.remote.repo.repo_id}/{sae.remote.listed.name}"
    for release in (*builtin_releases().values(), *added_releases()):
        if uri.startswith(f"{release.source}/"):
            told = release.reads.site(uri[len(release.source) + 1 :])
            site = told.over(Site(model=release.model or None)).over(site)
    return site
