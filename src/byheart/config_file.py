"""Reading byheart.yaml: every fault at once, each with file and line; and where every value came from."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from byheart.config import Config, Project
from byheart.config_settings import groups, settings
from byheart.errors import ConfigError

FILE_NAME = "byheart.yaml"
_MAX_BYTES = 1_000_000  # a config is a page of text; more is a mistaken file
_MAX_DEPTH = 12  # settings lie two deep; more is nonsense or an attack on the parser's recursion


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """A project, and for every setting where its value came from: "default", "byheart.yaml:7" or "--set"."""

    project: Project
    origins: dict[str, str]


def load(bot: Path, overrides: Sequence[str] = (), *, need_sources: bool = True) -> Loaded:
    """Read a bot's config, given its folder or its YAML file. Raises ConfigError with all faults.

    `overrides` are "key=value" (the CLI's --set). With `need_sources`, the manual and the question files must exist.
    """
    file = bot if bot.suffix in {".yaml", ".yml"} and not bot.is_dir() else bot / FILE_NAME
    reader = _Reader(file)
    values = reader.read(_text_of(file))
    for override in overrides:
        reader.override(values, override)
    config = reader.validated(values)
    if need_sources:
        reader.check_sources(values, file.parent)
    if config is None or reader.faults():
        raise ConfigError(reader.faults())
    return Loaded(Project(folder=file.parent, config=config), {key: reader.origin(key) for key in settings()})


def is_address(source: str) -> bool:
    """Tell a web address from a path."""
    return source.lower().startswith(("http://", "https://"))


def nearest(key: str, known: Iterable[str]) -> str:
    """Return " Did you mean …?" for a mistyped key, or "" where nothing is near.

    The right name in the wrong group comes first, then the nearest in the same group, then the nearest anywhere.
    """
    candidates = sorted(known)
    group, _, name = key.rpartition(".")
    misplaced = [candidate for candidate in candidates if candidate.rpartition(".")[2] == name]
    siblings = [candidate for candidate in candidates if candidate.rpartition(".")[0] == group]
    near = misplaced or difflib.get_close_matches(key, siblings, n=1) or difflib.get_close_matches(key, candidates, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as handle:
            raw = handle.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        advice = f"Make one with: byheart init {file.parent} --docs ADDRESS-OR-FOLDER"
        raise ConfigError([f"{file}: is not there. {advice}"]) from None
    except OSError as fault:
        raise ConfigError([f"{file}: cannot be read: {fault.strerror}"]) from fault
    if len(raw) > _MAX_BYTES:
        raise ConfigError([f"{file}: is larger than {_MAX_BYTES:,} bytes, which is no config. Name another file."])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = raw.count(b"\n", 0, fault.start) + 1
        raise ConfigError([f"{file}:{line}: byte 0x{raw[fault.start]:02x} is not UTF-8. Save it as UTF-8."]) from fault


class _Reader:
    """Collects the faults of one config, and the place of every key."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._settings = settings()
        self._groups = groups()
        self._lines: dict[str, int] = {}  # of a key, and of "key[0]", an item of its list
        self._flags: dict[str, str] = {}  # the --set that gave a key its value
        self._unreadable: set[str] = set()  # keys whose value is not YAML: reported once is enough
        self._faults: list[tuple[int, str]] = []  # line, message

    def read(self, text: str) -> dict[str, Any]:
        """Return the file's values as nested dicts. Raises ConfigError at once where it is not YAML."""
        node = self._compose(text)
        if node is None:
            raise ConfigError([f"{self._file}: is empty. It needs at least one line, such as: docs: ./manual"])
        if not isinstance(node, yaml.MappingNode):
            raise self._stop(_line(node), "is no list of settings. Write lines such as: docs: ./manual")
        return self._mapping(node, Config, "")

    def override(self, values: dict[str, Any], flag: str) -> None:
        """Put one "key=value" over the file's values."""
        key, equals, written = flag.partition("=")
        key = key.strip()
        if not equals:
            self._flag_fault(flag, "has no '='. Write it as: --set train.epochs=3")
        elif key not in self._settings:
            self._flag_fault(flag, f"there is no setting {key}.{nearest(key, self._settings)}")
        else:
            group, _, name = key.rpartition(".")
            (values.setdefault(group, {}) if group else values)[name] = self._flag_value(key, written, flag)
            self._flags[key] = flag

    def validated(self, values: dict[str, Any]) -> Config | None:
        """Return the config, or None after noting each fault of its values."""
        try:
            return Config.model_validate(values)
        except ValidationError as invalid:
            for error in invalid.errors(include_url=False, include_context=False):
                group, *inside = error["loc"]
                if inside or group not in self._groups:
                    self._explain(error["loc"], error["input"], missing=error["type"] == "missing")
                else:  # settings that do not go together
                    said = error["msg"].removeprefix("Value error, ")
                    self._fault(self._lines.get(str(group), 0), f"{group}: {said}")
        return None

    def check_sources(self, values: dict[str, Any], folder: Path) -> None:
        """Note each document or file of questions or conversations that is not there."""
        replay = values.get("train", {}).get("replay") or None  # "": none is named
        named = (("docs", values.get("docs")), ("questions", values.get("questions")), ("train.replay", replay))
        for key, written in named:
            for number, source in enumerate(written if isinstance(written, list) else [written]):
                if not isinstance(source, str) or (key == "docs" and is_address(source)):
                    continue
                looked_at = (folder / source).resolve()
                if "://" in source:
                    self._value_fault(key, number, f"{source} is neither an http(s) address nor a path.")
                elif not source.strip() or not looked_at.exists():
                    advice = "Paths start at the config's own folder."
                    self._value_fault(key, number, f"{source!r} is not there (looked at {looked_at}). {advice}")

    def origin(self, key: str) -> str:
        """Return where a key's value came from."""
        if key in self._flags:
            return "--set"
        return f"{self._file.name}:{self._lines[key]}" if key in self._lines else "default"

    def faults(self) -> list[str]:
        """Return all faults, in the order of the file's lines, flags last."""
        return [message for _, message in sorted(self._faults, key=lambda fault: fault[0])]

    def _compose(self, text: str) -> yaml.Node | None:
        try:
            self._refuse_tricks(text)
            node: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
        except yaml.reader.ReaderError as fault:
            line = text.count("\n", 0, fault.position) + 1
            raise self._stop(line, "holds a character that YAML forbids. Delete it.") from fault
        except yaml.MarkedYAMLError as fault:
            mark = fault.problem_mark or fault.context_mark
            tab = "\\t" in (fault.problem or "")
            advice = "holds a tab. YAML is indented with spaces only." if tab else f"is not YAML: {fault.problem}."
            raise self._stop(mark.line + 1 if mark else 1, advice) from fault
        return node

    def _refuse_tricks(self, text: str) -> None:
        """An alias can stand for a billion values, and deep nesting overruns the parser: a config needs neither."""
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise self._stop(_line(event), f"*{event.anchor}: write the value itself; aliases are not read.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise self._stop(_line(event), "is nested too deep. Settings lie two levels deep.")

    def _mapping(self, node: yaml.MappingNode, part: type[BaseModel], prefix: str) -> dict[str, Any]:
        """Return one level's values; note unknown and repeated keys."""
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            name = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "(a list or mapping)"
            key = f"{prefix}{name}"
            if name not in part.model_fields:
                near = nearest(key, [*self._settings, *self._groups])
                self._fault(_line(key_node), f"{key}: there is no such setting.{near}")
            elif name in values:
                self._fault(_line(key_node), f"{key}: is written twice (first in line {self._lines[key]}). Delete one.")
            else:
                self._lines[key] = _line(key_node)
                is_group = not prefix and name in self._groups
                values[name] = self._group(value_node, name) if is_group else self._plain(value_node, key)
        return values

    def _group(self, node: yaml.Node, name: str) -> dict[str, Any]:
        part = self._groups[name]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, part, f"{name}.")
        if node.tag != "tag:yaml.org,2002:null":  # "train:" with every line beneath it commented out is fine
            example = next(iter(part.model_fields))
            self._fault(_line(node), f"{name}: takes settings beneath it, indented, such as: {example}: …")
        return {}

    def _plain(self, node: yaml.Node, key: str) -> Any:
        """Return a value that has no settings beneath it, noting the line of each item of a list."""
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self._lines[f"{key}[{number}]"] = _line(item)
            return [self._plain(item, f"{key}[{number}]") for number, item in enumerate(node.value)]
        try:
            return yaml.SafeLoader("").construct_document(node)
        except (yaml.YAMLError, ValueError) as fault:  # ValueError: a date or a number that cannot be
            self._fault(_line(node), f"{key}: cannot be read: {getattr(fault, 'problem', None) or fault}.")
            self._unreadable.add(key.partition("[")[0])
            return None

    def _flag_value(self, key: str, written: str, flag: str) -> Any:
        setting = self._settings[key]
        if setting.raw_text:
            return written
        try:
            self._refuse_tricks(written)
            return yaml.safe_load(written)
        except (yaml.YAMLError, ValueError) as fault:
            problem = getattr(fault, "problem", None) or fault
            self._flag_fault(flag, f"is not a YAML value: {problem}. Allowed: {setting.allowed}.")
            self._unreadable.add(key)
            return None

    def _explain(self, location: tuple[int | str, ...], written: Any, *, missing: bool) -> None:
        """Note a fault that pydantic found, in words: what, where, allowed, way out."""
        names = [step for step in location if isinstance(step, str)]
        key = ".".join(names[: 2 if names[0] in self._groups else 1])
        setting = self._settings[key]
        if key in self._unreadable:
            return
        if missing:
            self._value_fault(key, None, "is missing. Write: docs: ./manual (a folder, a file or an address).")
            return
        number = next((step for step in location if isinstance(step, int)), None)
        way_out = "" if setting.required else f" Leave it out for the default ({_shown(setting.default)})."
        self._value_fault(key, number, f"{_shown(written)} does not fit. Allowed: {setting.allowed}.{way_out}")

    def _value_fault(self, key: str, number: int | None, message: str) -> None:
        """Note a fault of a key's value, or of item `number` of its list, wherever it was written."""
        if key in self._flags:
            self._flag_fault(self._flags[key], message)
        else:
            line = self._lines.get(f"{key}[{number}]") or self._lines.get(key, 0)
            self._fault(line, f"{key}: {message}")

    def _fault(self, line: int, message: str) -> None:
        self._faults.append((line, f"{self._file}:{line}: {message}" if line else f"{self._file}: {message}"))

    def _flag_fault(self, flag: str, message: str) -> None:
        self._faults.append((sys.maxsize, f"--set {flag}: {message}"))

    def _stop(self, line: int, message: str) -> ConfigError:
        """Return the error for a file that cannot be read any further."""
        return ConfigError([f"{self._file}:{line}: {message}"])


def _line(node: yaml.Node | yaml.Event) -> int:
    return node.start_mark.line + 1 if node.start_mark else 1


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else text[:57] + "…"
