#!/usr/bin/python
"""Hand images from one engine to others through a registry, and take old ones out of both."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_image
short_description: Hand images from one engine to others through a registry
description:
  - Pushes images that the registry lacks, pulls those that the engine lacks, and removes those that nobody wants any more.
  - The credentials go to the engine with each request and are written nowhere, unlike those of a login.
options:
  registry:
    description: Address and port of the registry.
    type: str
    required: true
  username:
    description: User of the registry.
    type: str
    required: true
  password:
    description: Password of the user.
    type: str
    required: true
  ca_path:
    description: File with the certificate authority that the registry's certificate is checked against.
    type: path
    required: true
  images:
    description: The images, name and tag without the registry.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(pushed), the registry has each image as this engine has it.
      - V(pulled), this engine has each image as the registry has it, under its name without the registry as well.
      - V(trimmed), of the images whose names begin with O(prefix) the registry and this engine's names for them have those of O(images) alone.
        Images of running containers stay on the engine.
      - V(dropped), the same for this engine alone.
    type: str
    choices: [pushed, pulled, trimmed, dropped]
    required: true
  prefix:
    description: Beginning of the names that V(trimmed) and V(dropped) look at.
    type: str
  timeout:
    description: Seconds that the engine or the registry may stay silent.
    type: int
    default: 600
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Hand an image to the other hosts
  registry_image:
    registry: 10.0.0.11:5443
    username: fleet
    password: "{{ registry_password }}"
    ca_path: /etc/docker/certs.d/10.0.0.11:5443/ca.crt
    images: ["example/greeting:1"]
    state: pushed
"""

RETURN = r"""
digests:
  description: The digest of each image in the registry, empty where a dry run would push it.
  returned: always
  type: dict
ids:
  description: The id of each image that was pushed or pulled, as this host has it.
  returned: always
  type: dict
moved:
  description: The images that were pushed, pulled or removed.
  returned: always
  type: list
  elements: str
"""

import base64
import http
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.engine import Engine, EngineError, socket_path

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
# Names in one answer of the registry, which allows 1000.
PAGE = 500


class RegistryError(Exception):
    """The registry refuses or does not answer."""


class Shelf(Protocol):
    """What is asked of a registry."""

    def manifest(self, image: str) -> tuple[str, str]:
        """Digest of the manifest, and id of the image; both empty where there is none."""
        ...

    def images(self, prefix: str) -> list[str]:
        """All images whose names begin so."""
        ...

    def remove(self, image: str, digest: str) -> None:
        """Take an image out."""
        ...


class Registry:
    """A registry, over HTTPS and its API."""

    def __init__(self, address: str, username: str, password: str, ca_path: str, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._login = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        try:
            context = ssl.create_default_context(cafile=ca_path)
        except OSError as error:
            raise RegistryError(f"{ca_path} cannot be read: {error}") from error
        # A registry of the private network is asked directly.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def _ask(self, path: str, method: str = "GET") -> tuple[dict[str, str], Any]:
        """Headers and document at a path; no headers where there is nothing."""
        request = urllib.request.Request(
            f"https://{self._address}/v2/{path}",
            method=method,
            headers={"Authorization": self._login, "Accept": MANIFEST},
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                text = answer.read()
                return {key.lower(): value for key, value in answer.headers.items()}, json.loads(text or b"null")
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.NOT_FOUND:
                return {}, None
            raise RegistryError(
                f"the registry answers {method} {path} with {error.code}: {error.read()[:300].decode(errors='replace')}"
            ) from error
        except (OSError, ValueError) as error:
            raise RegistryError(f"the registry at {self._address} does not answer: {error}") from error

    def manifest(self, image: str) -> tuple[str, str]:
        """Return the digest of the manifest, and the id of the image; both empty where there is none."""
        name, tag = split(image)
        headers, document = self._ask(f"{name}/manifests/{tag}")
        return headers.get("docker-content-digest", ""), ((document or {}).get("config") or {}).get("digest", "")

    def images(self, prefix: str) -> list[str]:
        """Return all images whose names begin so."""
        found, names, last = [], list[str](), ""
        while True:
            _, catalogue = self._ask(f"_catalog?{urlencode({'n': PAGE, 'last': last})}")
            page = (catalogue or {}).get("repositories") or []
            names += page
            if len(page) < PAGE:
                break
            last = page[-1]
        for name in names:
            if name.startswith(prefix):
                _, listed = self._ask(f"{name}/tags/list")
                found += [f"{name}:{tag}" for tag in (listed or {}).get("tags") or []]
        return sorted(found)

    def remove(self, image: str, digest: str) -> None:
        """Take an image out; its layers go with the next collection of garbage."""
        self._ask(f"{split(image)[0]}/manifests/{digest}", "DELETE")


def split(image: str) -> tuple[str, str]:
    """Return name and tag of an image; a port is no tag."""
    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "latest")


class Host:
    """What the engine does with images of one registry."""

    def __init__(self, engine: Engine, registry: str, username: str, password: str) -> None:
        self._engine = engine
        self._registry = registry
        login = {"username": username, "password": password, "serveraddress": registry}
        self._login = {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(login).encode()).decode()}

    def _steps(self, path: str) -> Iterator[dict[str, Any]]:
        for line in self._engine.ask("POST", path, headers=self._login).splitlines():
            if line.strip():
                step = json.loads(line)
                if "error" in step:
                    raise EngineError(str(step["error"]))
                yield step

    def identity(self, image: str) -> str:
        """The id of an image, empty where there is none."""
        return str(self._engine.image(image).get("Id", ""))

    def _tag(self, source: str, image: str) -> None:
        name, tag = split(image)
        self._engine.ask("POST", f"/images/{quote(source)}/tag?{urlencode({'repo': name, 'tag': tag})}")

    def push(self, image: str) -> None:
        """Push an image."""
        target = f"{self._registry}/{image}"
        self._tag(image, target)
        name, tag = split(target)
        list(self._steps(f"/images/{quote(name)}/push?{urlencode({'tag': tag})}"))

    def pull(self, image: str) -> None:
        """Pull an image and give it its short name."""
        source = f"{self._registry}/{image}"
        name, tag = split(source)
        list(self._steps(f"/images/create?{urlencode({'fromImage': name, 'tag': tag})}"))
        self._tag(source, image)

    def images(self, prefix: str) -> dict[str, list[str]]:
        """The engine's names for images of the registry that begin so: tags and digests, by the name without the registry and tag."""
        start = f"{self._registry}/{prefix}"
        found: dict[str, list[str]] = {}
        for image in self._engine.get("/images/json") or []:
            names = [*(image.get("RepoTags") or []), *(image.get("RepoDigests") or [])]
            ours = [name for name in names if name.startswith(start)]
            if ours:
                found[str(image["Id"])] = ours
        return found

    def remove(self, name: str) -> bool:
        """Remove a name; False where a container needs it."""
        try:
            self._engine.ask("DELETE", f"/images/{quote(name)}")
        except EngineError as error:
            if error.status not in (http.HTTPStatus.CONFLICT, http.HTTPStatus.NOT_FOUND):
                raise
            return False
        return True


def distribute(shelf: Shelf, host: Any, params: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Push or pull what is missing."""
    digests, ids, moved = {}, {}, []
    for image in params["images"]:
        digest, there = shelf.manifest(image)
        here = host.identity(image)
        if params["state"] == "pulled" and not there and not check_mode:
            raise RegistryError(f"the registry has no {image}; a run of site.yml pushes it")
        if here != there or not there:
            moved.append(image)
            if not check_mode:
                (host.push if params["state"] == "pushed" else host.pull)(image)
                digest, _ = shelf.manifest(image)
            elif params["state"] == "pushed":
                digest = ""
        digests[image] = digest
        ids[image] = host.identity(image)
    return {"changed": bool(moved), "digests": digests, "ids": ids, "moved": moved}


def trim(shelf: Shelf, host: Any, params: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Remove what is not wanted."""
    wanted = set(params["images"])
    removed = []
    if params["state"] == "trimmed":
        for image in shelf.images(params["prefix"]):
            if image not in wanted:
                digest, _ = shelf.manifest(image)
                removed.append(image)
                if digest and not check_mode:
                    shelf.remove(image, digest)
    keep = {f"{params['registry']}/{image}" for image in wanted}
    for names in host.images(params["prefix"]).values():
        if not keep.intersection(names):
            # Where a container needs the image, the engine keeps the last name.
            gone = [name for name in names if not check_mode and host.remove(name)]
            removed += names if check_mode else gone
    return {"changed": bool(removed), "digests": {}, "ids": {}, "moved": removed}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "registry": {"type": "str", "required": True},
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "ca_path": {"type": "path", "required": True},
            "images": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["pushed", "pulled", "trimmed", "dropped"], "required": True},
            "prefix": {"type": "str"},
            "timeout": {"type": "int", "default": 600},
        },
        required_if=[("state", "trimmed", ["prefix"]), ("state", "dropped", ["prefix"])],
        supports_check_mode=True,
    )
    params = module.params
    login = (params["registry"], params["username"], params["password"])
    if module.check_mode and not Path(params["ca_path"]).exists():
        # A dry run of hosts that have no registry yet.
        module.exit_json(
            changed=bool(params["images"]), digests=dict.fromkeys(params["images"], ""), ids={}, moved=params["images"]
        )
    act = trim if params["state"] in ("trimmed", "dropped") else distribute
    try:
        registry = Registry(*login, params["ca_path"], params["timeout"])
        host = Host(Engine(socket_path(), params["timeout"]), *login)
        module.exit_json(**act(registry, host, params, check_mode=module.check_mode))
    except (EngineError, RegistryError) as error:
        module.fail_json(msg=f"The images cannot be {params['state']}: {error}")


if __name__ == "__main__":
    main()
