"""What a checkup will send at most, and to which other paths and regions of the same provider."""

from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Struct, structs

from headgate.catalog.routes import Preset, Route, Upstream
from headgate.diagnostics.probes import MAX_TOKENS, MODES, PREFIX_WORDS
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.registry import FACTS


class Plan(Struct, frozen=True):
    """At most this much will be sent and got."""

    requests: int
    input_tokens: int
    output_tokens: int


def plan(route: Route, native: Route | None, other_region: bool) -> Plan:
    """What a checkup of this route sends at most."""
    long = 2 * PREFIX_WORDS
    forms = len(FACTS[route.upstream.dialect].reasoning_forms)
    # hello, two of the prefix, the first turn, the second without and with each form, stop, schema
    asked, tokens = 1 + 2 + 1 + 1 + forms + 2, 2 * long + 300 * (forms + 5)
    if route.capabilities.tools:
        asked, tokens = asked + len(MODES), tokens + 300 * len(MODES)
    if "image" in route.model.input:
        asked, tokens = asked + 1, tokens + 600
    if native is not None:
        asked += 4 + 1 + len(FACTS[native.upstream.dialect].reasoning_forms)
        tokens += 2 * long + 1200
    if other_region:
        asked, tokens = asked + 1, tokens + 50
    others = max(0, len(route.pool) - 1)  # keys, each of which is asked once
    asked, tokens = asked + others, tokens + 50 * others
    return Plan(asked + 1, tokens, asked * MAX_TOKENS)  # and one that only counts


def other_region_url(upstream: Upstream, preset: str, presets: dict[str, Preset]) -> str:
    """Return the same vendor's address in its other region; "" when there is none.

    Only for the vendor's own address: a key must not go where its owner did not mean it to.
    """
    own = presets[preset]
    if upstream.base_url.rstrip("/") != own.base_url or not own.env:
        return ""
    for other in presets.values():
        if other.env == own.env and other.dialect == own.dialect and other is not own:
            return other.base_url
    return ""


def native_of(route: Route, preset: str, presets: dict[str, Preset]) -> Route | None:
    """The same model on the same host over Anthropic's protocol, where the vendor has both."""
    own = presets[preset]
    if route.upstream.dialect != "openai" or not own.env:
        return None
    for name, other in presets.items():
        if other.env != own.env or other.dialect != "anthropic":
            continue
        here, there = urlsplit(route.upstream.base_url), urlsplit(other.base_url)
        url = urlunsplit((here.scheme, here.netloc, there.path, "", ""))
        fields = {**other.capabilities, **other.models.get(route.model.id, {})}
        return Route(
            route.model,
            structs.replace(
                route.upstream,
                name=name,
                label=other.label,
                base_url=url,
                dialect="anthropic",
                auth=other.auth,
                headers=other.headers,
            ),
            other.names.get(route.model.id) or other.prefix + route.model.id,
            msgspec.convert(fields, Capabilities),
            key=route.key,
        )
    return None
