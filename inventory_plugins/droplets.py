"""Hosts from DigitalOcean: the droplets that playbooks/droplet.yml created, so that no address is copied by hand."""

from __future__ import annotations

DOCUMENTATION = """
name: droplets
short_description: Droplets of this platform as hosts
description:
  - Lists the droplets whose tags say that they are ours, with the address to connect to and what the cloud knows of them.
  - Without a token it lists nothing and is content, so that hosts written down by hand need none.
options:
  plugin:
    description: Name of this plugin.
    required: true
    choices: [droplets]
  names:
    description: Names of the droplets, as in `droplet_name`.
    type: list
    elements: str
    required: true
  tag_prefix:
    description: What the tag of a droplet begins with, as in `droplet_tag`.
    type: str
    default: "mlflow-anywhere:"
  group:
    description: Group that the droplets are in.
    type: str
    default: droplets
  api_token:
    description: Token of the account.
    type: str
    env: [{name: DIGITALOCEAN_TOKEN}]
  api_url:
    description: Address of the API.
    type: str
    default: https://api.digitalocean.com
    env: [{name: DIGITALOCEAN_API_URL}]
"""

EXAMPLES = """
plugin: droplets
names: [mlflow]
"""

from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

# Ansible ships this directory with modules; a plugin has to look where it lies.
SHARED = str(Path(__file__).parents[1] / "module_utils")
if SHARED not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(SHARED)

from ansible.module_utils.digitalocean import Api, CloudError, addresses


def tag_of(name: str, prefix: str) -> str:
    """Return the tag of a droplet; tags have no dots."""
    return prefix + name.replace(".", "-")


def found(api: Api, names: list[str], prefix: str) -> list[dict[str, Any]]:
    """Return what a play may know about each droplet."""
    reserved = {
        item["droplet"]["id"]: item["ip"] for item in api.every("reserved_ips.list", "reserved_ips") if item["droplet"]
    }
    return [
        {
            "name": name,
            "id": droplet["id"],
            "status": droplet["status"],
            **addresses(droplet),
            "reserved_ip": reserved.get(droplet["id"], ""),
            "region": droplet["region"]["slug"],
            "size": droplet["size_slug"],
        }
        for name in names
        for droplet in api.droplets(tag_of(name, prefix))
        if droplet["name"] == name
    ]


class InventoryModule(BaseInventoryPlugin):
    """The plugin."""

    NAME = "droplets"

    def verify_file(self, path: str) -> bool:
        """Take files of this name only."""
        return bool(super().verify_file(path)) and Path(path).stem == "droplets"

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:  # noqa: FBT001, FBT002 - Ansible's
        """Add the hosts."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        group = self.inventory.add_group(self.get_option("group"))
        token = self.get_option("api_token")
        if not token:
            self.display.vv(f"{path}: DIGITALOCEAN_TOKEN is not set, so no droplets are looked for")
            return
        try:
            droplets = found(
                Api(token, self.get_option("api_url")), self.get_option("names"), self.get_option("tag_prefix")
            )
        except CloudError as error:
            raise AnsibleParserError(f"The droplets cannot be listed. {error}") from error
        for droplet in droplets:
            address = droplet["reserved_ip"] or droplet["ipv4"]
            if droplet["status"] != "active" or not address:
                self.display.warning(
                    f"The droplet {droplet['name']} is {droplet['status']!r} and left out: run playbooks/droplet.yml, which awaits it."
                )
                continue
            host = self.inventory.add_host(droplet["name"], group=group)
            self.inventory.set_variable(host, "ansible_connection", "ssh")
            self.inventory.set_variable(host, "ansible_host", address)
            self.inventory.set_variable(host, "droplet", droplet)
