"""Filter `served_models`: the models to serve, complete and checked, or one error that names every mistake."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

KEYS = (
    "name",
    "model",
    "alias",
    "engine",
    "replicas",
    "port",
    "memory",
    "challenger",
    "allow_pickle",
    "build_from_source",
    "egress",
    "labels",
    "packages",
)
CHALLENGER_KEYS = ("alias", "percent")
ENGINES = ("mlflow", "api")

NAME = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", re.ASCII)
NAME_RULE = "letters, digits and single dashes between them, at most 32 characters"
NAME_LIMIT = 32
MODEL_LIMIT = 256
ALIAS = re.compile(r"[\w-]+", re.ASCII)
ALIAS_RULE = "letters, digits, _ and -, at most 255 characters, neither 'latest' nor 'v' with a number"
ALIAS_LIMIT = 255
ALIAS_RESERVED = re.compile(r"latest|v[0-9]+", re.ASCII | re.IGNORECASE)
VERSION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
MEMORY = re.compile(r"[1-9][0-9]*(\.[0-9]+)?([kmgt]i?)?b?", re.ASCII | re.IGNORECASE)
SOURCE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?==[0-9][A-Za-z0-9.!+_-]{0,99}", re.ASCII)
# A name, because the model finds the way by it: an address would lead past the name server.
# Its last part begins with a letter, as that of no address does, however it is spelled.
DESTINATION = re.compile(r"([a-z0-9_]([a-z0-9_-]*[a-z0-9])?\.)*[a-z]([a-z0-9-]*[a-z0-9])?:[1-9][0-9]{0,4}", re.ASCII)
DESTINATION_RULE = (
    'a list of names with ports such as ["db.example.com:5432"], in lower case, no addresses, wildcards or localhost'
)
DESTINATION_LIMIT = 200
# A Debian package, Debian Policy 5.6.1.
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,99}", re.ASCII)
# As many as a page shows: labels and characters of one.
LABELS_LIMIT = 100
LABEL_LIMIT = 80
LABELS_RULE = (
    f"a mapping of classes to texts such as {{0: setosa, 1: versicolor}}, or a list of texts for the classes 0, 1 and so on; at most {LABELS_LIMIT}"
    f" of at most {LABEL_LIMIT} printable characters"
)
REPLICAS_LIMIT = 100
PORT_LIMIT = 65535
# A service is found by name, and a DNS label has no more than that.
SERVICE_LIMIT = 63
SHOWN = 60


def shown(value: object) -> str:
    """A value as an error message shows it."""
    text = ascii(str(value) if isinstance(value, str) else value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def whole(value: object) -> int | None:
    """A whole number; true and false are none."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


class Entry:
    """One entry of the list, with what is wrong with it."""

    def __init__(self, index: int, raw: Mapping[Any, Any]) -> None:
        self.index = index
        self.raw = raw
        self.problems: list[str] = []

    @property
    def label(self) -> str:
        name = self.raw.get("name")
        return f"served_models[{self.index}]" + (f" ({shown(name)})" if isinstance(name, str) else "")

    def refuse(self, problem: str, allowed: str) -> None:
        self.problems.append(f"{self.label}: {problem}. Allowed: {allowed}.")

    def text(self, key: str, default: str, allowed: str) -> str | None:
        """The text under a key; None, and a problem noted, if it is no text."""
        value = self.raw.get(key, default)
        if isinstance(value, str):
            return str(value)
        self.refuse(f"{key} is {shown(value)}, which is no text", allowed)
        return None

    def keys(self) -> None:
        for key in self.raw:
            if key not in KEYS:
                self.refuse(f"there is no key {shown(key)}", ", ".join(KEYS))

    def name(self) -> str:
        if "name" not in self.raw:
            self.refuse("name is missing", NAME_RULE)
            return ""
        name = self.text("name", "", NAME_RULE)
        if name is not None and (not NAME.fullmatch(name) or len(name) > NAME_LIMIT):
            self.refuse(f"name is {shown(name)}", NAME_RULE)
        return name or ""

    def model(self, name: str) -> str:
        allowed = f"the name of a registered model: 1 to {MODEL_LIMIT} characters without / and :"
        model = self.text("model", name, allowed)
        given = "model" in self.raw and model is not None
        if given and (not model or len(model) > MODEL_LIMIT or "/" in model or ":" in model or not model.isprintable()):
            self.refuse(f"model is {shown(model)}", allowed)
        return model or ""

    def alias(self, value: object, key: str) -> str:
        if not isinstance(value, str):
            self.refuse(f"{key} is {shown(value)}, which is no text", ALIAS_RULE)
            return ""
        alias = str(value)
        if not ALIAS.fullmatch(alias) or len(alias) > ALIAS_LIMIT or ALIAS_RESERVED.fullmatch(alias):
            self.refuse(f"{key} is {shown(alias)}", ALIAS_RULE)
        return alias

    def engine(self) -> str:
        value = self.raw.get("engine", ENGINES[0])
        if not isinstance(value, str) or value not in ENGINES:
            self.refuse(f"engine is {shown(value)}", " or ".join(ENGINES))
        return str(value)

    def number(self, key: str, value: object, lowest: int, highest: int) -> int:
        number = whole(value)
        if number is None or not lowest <= number <= highest:
            kind = "" if number is not None else ", which is no whole number"
            self.refuse(f"{key} is {shown(value)}{kind}", f"{lowest} to {highest}")
            return lowest
        return number

    def port(self, reserved: set[int]) -> int | None:
        value = self.raw.get("port")
        if value is None:
            return None
        port = self.number("port", value, 1, PORT_LIMIT)
        if whole(value) in reserved:
            taken = ", ".join(str(number) for number in sorted(reserved))
            self.refuse(f"port is {port}, which the platform uses itself", f"1 to {PORT_LIMIT} except {taken}")
        return port

    def memory(self) -> str:
        allowed = "a size such as 512m or 2g, as text"
        memory = self.text("memory", "1g", allowed)
        if memory is not None and not MEMORY.fullmatch(memory):
            self.refuse(f"memory is {shown(memory)}", allowed)
        return memory or ""

    def challenger(self, champion: str) -> dict[str, Any] | None:
        value = self.raw.get("challenger")
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.refuse(f"challenger is {shown(value)}", "a mapping {alias: challenger, percent: 1 to 99}")
            return None
        for key in value:
            if key not in CHALLENGER_KEYS:
                self.refuse(f"challenger has no key {shown(key)}", ", ".join(CHALLENGER_KEYS))
        alias = self.alias(value.get("alias", "challenger"), "challenger.alias")
        if alias and alias == champion:
            self.refuse(f"challenger.alias is {shown(alias)}, the alias of the model itself", "another alias")
        if "percent" not in value:
            self.refuse("challenger.percent is missing", "1 to 99")
            return None
        return {"alias": alias, "percent": self.number("challenger.percent", value["percent"], 1, 99)}

    def allow_pickle(self) -> bool | list[str] | None:
        """Whether its versions may be unpickled: None leaves that to serving_allow_pickle."""
        value = self.raw.get("allow_pickle")
        if value is None or isinstance(value, bool):
            return value
        versions = value if isinstance(value, list | tuple) else [value]
        known = [version for version in versions if whole(version) is not None or isinstance(version, str)]
        texts = [str(version) for version in known if VERSION.fullmatch(str(version))]
        if not isinstance(value, list | tuple) or len(texts) != len(versions):
            self.refuse(f"allow_pickle is {shown(value)}", 'true, false or a list of versions such as ["3"]')
        return texts

    def build_from_source(self) -> list[str]:
        """The packages, each in one version, that may be built from their source distributions."""
        value = self.raw.get("build_from_source", [])
        lines = [line for line in value if isinstance(line, str)] if isinstance(value, list | tuple) else []
        texts = [line for line in lines if SOURCE.fullmatch(line)]
        if not isinstance(value, list | tuple) or len(texts) != len(value):
            self.refuse(
                f"build_from_source is {shown(value)}", 'a list of packages, each in one version, such as ["name==1.2"]'
            )
        return list(dict.fromkeys(texts))

    def egress(self) -> list[dict[str, Any]]:
        """The destinations that the model may reach: each host with its ports."""
        value = self.raw.get("egress", [])
        if not isinstance(value, list | tuple):
            self.refuse(f"egress is {shown(value)}", DESTINATION_RULE)
            return []
        hosts: dict[str, set[int]] = {}
        for item in value:
            known = isinstance(item, str) and len(item) <= DESTINATION_LIMIT and DESTINATION.fullmatch(item)
            host, _, port = str(item).rpartition(":")
            if not known or int(port) > PORT_LIMIT or host.rpartition(".")[2] == "localhost":
                self.refuse(f"egress has {shown(item)}", DESTINATION_RULE)
            else:
                hosts.setdefault(host, set()).add(int(port))
        return [{"host": host, "ports": sorted(ports)} for host, ports in sorted(hosts.items())]

    def labels(self) -> dict[str, str]:
        """What people call the classes, by the class as text; a list names the classes 0, 1 and so on."""
        value = self.raw.get("labels", {})
        named = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        keys = isinstance(named, Mapping) and all(whole(key) is not None or isinstance(key, str) for key in named)
        texts = {str(key): text for key, text in named.items()} if isinstance(named, Mapping) and keys else {}
        known = all(
            isinstance(text, str) and 0 < len(text) <= LABEL_LIMIT and text.isprintable()
            for text in (*texts, *texts.values())
        )
        if not keys or not known or len(texts) > LABELS_LIMIT:
            self.refuse(f"labels is {shown(value)}", LABELS_RULE)
            return {}
        return {key: str(text) for key, text in texts.items()}

    def packages(self) -> list[str]:
        """The Debian packages that the image has besides."""
        value = self.raw.get("packages", [])
        names = [name for name in value if isinstance(name, str)] if isinstance(value, list | tuple) else []
        # apt-get takes a name with one of these at its end for another order.
        known = [name for name in names if PACKAGE.fullmatch(name) and name[-1] not in "+-"]
        if not isinstance(value, list | tuple) or len(known) != len(value):
            self.refuse(f"packages is {shown(value)}", 'a list of names of Debian packages such as ["libsndfile1"]')
        return sorted(set(known))

    def normal(self, platform_name: str, reserved: set[int]) -> dict[str, Any]:
        """The entry with every key; what is wrong is noted in `problems`."""
        self.keys()
        name = self.name()
        alias = self.alias(self.raw.get("alias", "champion"), "alias")
        challenger = self.challenger(alias)
        service = f"{platform_name}-model-{name.lower()}"
        challenger_service = f"{service}--challenger" if challenger else None
        longest = challenger_service or service
        if NAME.fullmatch(name) and len(name) <= NAME_LIMIT and len(longest) > SERVICE_LIMIT:
            self.refuse(
                f"its service would be called {longest}, {len(longest)} characters",
                f"{SERVICE_LIMIT}: shorten name or platform_name by {len(longest) - SERVICE_LIMIT}",
            )
        return {
            "name": name,
            "model": self.model(name),
            "alias": alias,
            "engine": self.engine(),
            "replicas": self.number("replicas", self.raw.get("replicas", 1), 1, REPLICAS_LIMIT),
            "port": self.port(reserved),
            "memory": self.memory(),
            "challenger": challenger,
            "allow_pickle": self.allow_pickle(),
            "build_from_source": self.build_from_source(),
            "egress": self.egress(),
            "labels": self.labels(),
            "packages": self.packages(),
            "service": service,
            "challenger_service": challenger_service,
        }


def twins(models: list[dict[str, Any]]) -> list[str]:
    """What two entries may not share: a name in any case, a port."""
    problems = []
    names: dict[str, int] = {}
    ports: dict[int, int] = {}
    for index, model in enumerate(models):
        name, port = model["name"], model["port"]
        if name and (first := names.setdefault(name.lower(), index)) != index:
            problems.append(
                f"served_models[{index}] ({shown(name)}): served_models[{first}] has that name already."
                " Allowed: names that differ in more than upper and lower case."
            )
        if port is not None and (first := ports.setdefault(port, index)) != index:
            problems.append(
                f"served_models[{index}] ({shown(name)}): port {port} belongs to served_models[{first}]"
                f" ({shown(models[first]['name'])}) already. Allowed: a port of its own, or none."
            )
    return problems


def served_models(
    value: object,
    platform_name: str = "mlflow-anywhere",
    reserved_ports: Iterable[int] = (),
    where: str = "inventory/<name>/group_vars/all/",
) -> list[dict[str, Any]]:
    """Every model with all its keys and the names of its services."""
    mend = f"Edit served_models in {where} and run the same command again."
    if not isinstance(value, list | tuple):
        raise AnsibleFilterError(
            f"served_models is {shown(value)}. Allowed: a list of mappings with the keys {', '.join(KEYS)}. {mend}"
        )
    reserved = {int(port) for port in reserved_ports}
    problems: list[str] = []
    models: list[dict[str, Any]] = []
    for index, raw in enumerate(value):
        entry = Entry(index, raw if isinstance(raw, Mapping) else {})
        if isinstance(raw, Mapping):
            models.append(entry.normal(platform_name, reserved))
        else:
            entry.refuse(f"is {shown(raw)}", f"a mapping with the keys {', '.join(KEYS)}")
            models.append({"name": "", "port": None})
        problems += entry.problems
    problems += twins(models)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise AnsibleFilterError("\n- ".join([f"served_models has {count}:", *problems]) + f"\n{mend}")
    return models


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        return {"served_models": served_models}
