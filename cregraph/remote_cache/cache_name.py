"""Names of remote caches in `--cache` and `--cache-write`. Only sources.yaml can mark a cache as trusted.

NAME                    of `cache:` in sources.yaml
registry:NAME/PATH      a repository of a registry that sources.yaml names
HOST/PATH               a repository of that registry
"""

from __future__ import annotations

from cregraph.errors import CregraphError, did_you_mean, nearest
from cregraph.image.model.reference import Reference, parse_reference
from cregraph.remote_cache.cache_repository import RemoteCache
from cregraph.sources.routes import Routes

__all__ = ["cache_named"]


def cache_named(text: str, routes: Routes, *, option: str = "--cache") -> RemoteCache:
    """Return the cache that `text` names. Raises CregraphError, which names the option, for an unknown or invalid name."""
    where = f"`{option} {text}`"
    named = routes.cache.get(text)
    place = _place(named.ref if named else text, routes, where if not named else f"{routes.origin}: cache.{text}.ref", text)
    trusted = any(
        one.trusted and _place(one.ref, routes, f"{routes.origin}: cache.{name}.ref", name) == place
        for name, one in routes.cache.items()
    )
    plain = next((registry.plain_http for registry in routes.registry.values() if registry.host == place.host), False)
    return RemoteCache(place.host, place.repository, plain_http=True if plain else None, trusted=trusted)


def _place(ref: str, routes: Routes, where: str, named: str) -> Reference:
    text = ref.rstrip("/")
    if text.startswith("registry:"):
        name, slash, path = text.removeprefix("registry:").partition("/")
        registry = routes.registry.get(name)
        if registry is None or not slash:
            meant = nearest(name, routes.registry)
            raise CregraphError(
                f"{where}: " + (f"unknown registry `{name}`" if slash else "names no path"),
                hint=f"write `registry:{meant}/…` instead"
                if meant and slash
                else "write registry:NAME/PATH, with `registry: {NAME: {host: …}}` in sources.yaml",
            )
        text = f"{registry.host}/{path}"
    host, slash, _ = text.partition("/")
    if not slash or not (any(c in host for c in ".:") or host == "localhost"):
        raise CregraphError(
            f"{where}: does not name a cache: {_known(routes)}",
            hint=did_you_mean(named, routes.cache, "write HOST/PATH, or state it: `cache: {NAME: {ref: HOST/PATH}}`"),
        )
    place = parse_reference(text, where=where, fold=True)
    if place.tag or place.digest:
        raise CregraphError(f"{where}: a cache is a repository; entries have their own tags", hint="remove the tag or digest")
    return place


def _known(routes: Routes) -> str:
    known = ", ".join(f"`{name}`" for name in sorted(routes.cache))
    return f"`{routes.origin}` knows {known}" if known else f"`{routes.origin}` does not name a cache"
