"""Settings from their sources: defaults < preset < site file < campaign file < environment < command line."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from stormtracks.settings.campaign import CampaignSettings, HostSettings
from stormtracks.settings.errors import SettingsError

__all__ = ["SITE_VARIABLE", "LoadedSettings", "load_settings"]

PREFIX = "STORMTRACKS_"
SITE_VARIABLE = "STORMTRACKS_SITE"
"""Environment variable that names the site file; else `~/.config/stormtracks/site.toml`, if there is one."""

_OF_HOSTS = tuple(f"cluster.hosts.{field}" for field in HostSettings.model_fields)
_PATHS = ("data.root", "results.root", "cluster.certificates", "cluster.key")
_NEEDED = {"missing": "too few values", "model_type": "a table is needed", "path_type": "a path is needed"}
"""What is wrong by the kind of problem, where pydantic says it in terms of Python."""


@dataclass(frozen=True)
class _Layer:
    """One source: where it is, as the user knows it, its values, and where its relative paths start."""

    origin: str
    values: dict[str, Any]
    base: Path


@dataclass(frozen=True)
class LoadedSettings:
    """Settings and where each value came from.

    Parameters
    ----------
    campaign : CampaignSettings
    origins : dict
        For each value, by dotted name, the source that set it.
    """

    campaign: CampaignSettings
    origins: dict[str, str]


def load_settings(
    campaign_file: Path | None = None,
    *,
    command_line: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Settings of a campaign, each from the strongest source that gives it.

    Parameters
    ----------
    campaign_file : Path, optional
        TOML file of the campaign.
    command_line : mapping, optional
        Values by dotted name, ``{"run.workers": 4}``; strongest of all.
    environment : mapping, optional
        Environment variables; those of the process if not given. ``STORMTRACKS_TRACKING__MIN_POINTS=8`` sets
        ``tracking.min_points``; lists as ``1,2,3`` or as JSON.

    Raises
    ------
    SettingsError
        If a file cannot be read, or a setting is unknown or out of bounds; names it and its source.
    """
    environment = os.environ if environment is None else environment
    here = campaign_file.resolve().parent if campaign_file else Path.cwd()
    layers = [_Layer("default", CampaignSettings().model_dump(exclude_unset=False), here)]
    site = _site_file(environment)
    if site is not None:
        layers.append(_file_layer(site, f"site file {site}"))
    if campaign_file is not None:
        layers.append(_file_layer(campaign_file, f"campaign file {campaign_file}"))
    layers.append(_Layer("environment", _from_environment(environment), Path.cwd()))
    layers.append(_Layer("command line", _nested(command_line or {}), Path.cwd()))
    layers[1:1] = _preset(layers, here)
    return _merge(layers)


def _site_file(environment: Mapping[str, str]) -> Path | None:
    if named := environment.get(SITE_VARIABLE):
        return Path(named)
    usual = Path(environment.get("HOME", "/nonexistent"), ".config", "stormtracks", "site.toml")
    return usual if usual.is_file() else None


def _file_layer(path: Path, origin: str) -> _Layer:
    try:
        with path.open("rb") as stream:
            values = tomllib.load(stream)
    except OSError as error:
        raise SettingsError(f"cannot read {origin}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{origin} is not TOML: {error}") from error
    return _Layer(origin, values, path.resolve().parent)


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in environment.items():
        if name.startswith(PREFIX) and name != SITE_VARIABLE:
            setting = name[len(PREFIX) :].lower().replace("__", ".")
            try:
                values[setting] = json.loads(text) if text.startswith(("[", "{")) else text
            except json.JSONDecodeError as error:
                raise SettingsError(
                    f"environment variable {name} = {text!r} is no JSON list or table: {error}"
                ) from error
    return _nested(values)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise SettingsError(f"setting {name!r} cannot be set where {section!r} is set as a whole, to {place!r}")
        place[last] = value
    return tree


def _preset(layers: list[_Layer], base: Path) -> list[_Layer]:
    """The layer of the preset that the other layers name, if they name one."""
    name = next((layer.values["preset"] for layer in reversed(layers) if "preset" in layer.values), "none")
    folder = resources.files("stormtracks.settings") / "presets"
    known = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    if name == "none" or name not in known:
        return []  # an unknown one is refused with the other values
    text = (folder / f"{name}.toml").read_text(encoding="utf-8")
    return [_Layer(f"preset {name}", tomllib.loads(text), base)]


def _leaves(values: Mapping[str, Any], model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Values by dotted name; tables that are no section of the settings stay whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        known = model.model_fields.get(key)
        section = known.annotation if known is not None else None
        if isinstance(section, type) and issubclass(section, BaseModel) and isinstance(value, Mapping):
            flat |= _leaves(value, section, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _merge(layers: list[_Layer]) -> LoadedSettings:
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for name, value in _leaves(layer.values, CampaignSettings).items():
            if name in _PATHS:
                value = _located(value, layer.base)
            elif name == "cluster.hosts" and isinstance(value, list):
                value = [_with_key_located(host, layer.base) for host in value]
            if name == "season":  # by name: it stands for the whole table
                for part in ("season.start", "season.end"):
                    merged.pop(part, None)
                    origins[part] = layer.origin
            elif name.startswith("season."):
                merged.pop("season", None)
            # Of the two ways to name the field, the stronger source's stands alone.
            other = {"data.variable": "data.wind", "data.wind": "data.variable"}.get(name)
            if other and value is not None and origins.get(other) != layer.origin:
                merged.pop(other, None)
            merged[name] = value
            origins[name] = layer.origin
    origins.pop("season", None)
    try:
        campaign = CampaignSettings.model_validate(_nested(merged))
    except ValidationError as error:
        raise SettingsError(_explain(error, origins, [layer.origin for layer in layers])) from error
    return LoadedSettings(campaign, origins)


def _located(path: Any, base: Path) -> Any:
    """A path as seen from where its source lies; what is none is left to be refused with the other values."""
    return base / Path(path).expanduser() if isinstance(path, (str, Path)) else path


def _with_key_located(host: Any, base: Path) -> Any:
    is_table = isinstance(host, dict) and "key" in host
    return host | {"key": _located(host["key"], base)} if is_table else host


def _explain(error: ValidationError, origins: Mapping[str, str], order: list[str]) -> str:
    """What is wrong, one line each; `order` are the sources, the strongest last."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"] if isinstance(part, str))
        unknown = problem["type"] == "extra_forbidden"
        known = [*_leaves(CampaignSettings().model_dump(), CampaignSettings), *_OF_HOSTS]
        # A union's branches add their own names to the place.
        while not unknown and name not in origins and name not in known and "." in name:
            name = name.rpartition(".")[0]
        # A table in a list, such as a host's, has but the list's origin.
        given = name if name in origins else name.rpartition(".")[0]
        # What is wrong with a whole section is the matter of the last that set anything in it.
        of_section = [source for key, source in origins.items() if key.startswith(f"{name}.")]
        origin = origins.get(given) or max(of_section, key=order.index)
        if unknown:
            lines.append(f"unknown setting {name!r} ({origin}){_likely(name, known)}")
        else:
            message = _NEEDED.get(problem["type"], problem["msg"]).removeprefix("Value error, ")
            lines.append(f"setting {name!r}{_given(problem['input'])} ({origin}): {message}")
    return "\n".join(dict.fromkeys(lines))


def _given(value: Any) -> str:
    """A value, for a message; nothing for a whole section."""
    if isinstance(value, Mapping):
        return ""
    return f" = {str(value) if isinstance(value, Path) else value!r}"


def _likely(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "; `stormtracks settings` lists them all"


def describe_settings(loaded: LoadedSettings, *, origin: bool = False) -> list[str]:
    """All settings as the lines of a campaign file, if wanted each with where its value came from."""
    values = _leaves(loaded.campaign.model_dump(mode="json"), CampaignSettings)
    lines: list[str] = []
    section = ""
    # Plain values first: in TOML what follows a section's name belongs to it.
    for name in sorted(values, key=lambda name: "." in name):
        table, _, key = name.rpartition(".")
        if table != section:
            lines += ["", f"[{table}]"]
            section = table
        value = values[name]
        line = f"# {key} is not set" if value is None else f"{key} = {_toml(value)}"
        lines.append(f"{line:<44}  # {loaded.origins[name]}" if origin else line)
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        # TOML has no word for what is not set.
        given = (f"{_toml(key)} = {_toml(part)}" for key, part in value.items() if part is not None)
        return f"{{{', '.join(given)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # A JSON text, number or truth value is TOML too.
    return json.dumps(value, ensure_ascii=False)
