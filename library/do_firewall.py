#!/usr/bin/python
"""Have a cloud firewall around the droplets with a tag."""

from __future__ import annotations

DOCUMENTATION = r"""
module: do_firewall
short_description: Have a DigitalOcean firewall around the droplets with a tag
description:
  - The firewall lets in what is listed, over IPv4 and IPv6, and lets everything out. It covers droplets by their tag, so it stands before the first of them.
  - A firewall is ours if it covers our tag. One of the same name that does not is somebody else's and never touched.
options:
  state:
    description: Whether the firewall exists. C(absent) removes the tag as well, once nothing bears it.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the firewall.
    type: str
    required: true
  tag:
    description: Tag of the droplets that it covers. It is created where it is missing.
    type: str
    required: true
  inbound:
    description: What is let in.
    type: list
    elements: dict
    default: []
    suboptions:
      protocol:
        description: The protocol.
        type: str
        choices: [tcp, udp, icmp]
        required: true
      ports:
        description: A port or range such as C(8000-9000); not for ICMP.
        type: str
        default: '0'
      sources:
        description: Addresses and networks that are let in.
        type: list
        elements: str
        required: true
  api_token:
    description: Token of the account, by default what the environment says in C(DIGITALOCEAN_TOKEN).
    type: str
  api_url:
    description: Address of the API, by default what the environment says in C(DIGITALOCEAN_API_URL), else DigitalOcean's.
    type: str
    default: https://api.digitalocean.com
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Let in SSH and HTTPS
  do_firewall:
    name: mlflow-anywhere-mlflow
    tag: mlflow-anywhere:mlflow
    inbound:
      - {protocol: tcp, ports: "22", sources: [10.0.0.0/8]}
      - {protocol: tcp, ports: "443", sources: ["0.0.0.0/0", "::/0"]}
"""

RETURN = r"""
firewall:
  description: The firewall, empty when there is none.
  returned: always
  type: dict
  contains:
    name:
      description: Its name.
      type: str
    inbound:
      description: What it lets in.
      type: list
"""

import ipaddress
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.digitalocean import CONFLICT, Api, CloudError, arguments, check_tag

Document = dict[str, Any]
EVERYWHERE = ["0.0.0.0/0", "::/0"]
OUTBOUND = [
    {"protocol": protocol, "ports": "0", "destinations": {"addresses": EVERYWHERE}}
    for protocol in ("tcp", "udp", "icmp")
]


def network(text: str) -> str:
    """Return an address or network in one spelling; refuse what is none."""
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise CloudError(
            f"sources (droplet_ssh_sources) has {text!r}; addresses and networks are allowed, such as 10.0.0.1, 10.0.0.0/8 or ::/0."
        ) from error
    return str(found.network_address) if found.prefixlen == found.max_prefixlen else str(found)


def spelled(rules: list[Document], peers: str) -> list[Document]:
    """Return rules as the API takes them, so that two equal sets compare equal."""
    plain = [
        {
            "protocol": rule["protocol"],
            "ports": "0" if rule["protocol"] == "icmp" or rule.get("ports") == "all" else str(rule.get("ports") or "0"),
            # What is no address, a tag for instance, is kept as it is.
            peers: {**rule[peers], "addresses": sorted(map(network, rule[peers].get("addresses") or []))},
        }
        for rule in rules
    ]
    return sorted(plain, key=lambda rule: (rule["protocol"], rule["ports"], str(rule[peers])))


def shown(firewall: Document) -> Document:
    """Return what the module compares and tells of a firewall."""
    return {
        "name": firewall["name"],
        "tags": sorted(firewall.get("tags") or []),
        "inbound": spelled(firewall.get("inbound_rules") or [], "sources"),
        "outbound": spelled(firewall.get("outbound_rules") or [], "destinations"),
    }


class Firewall:
    """The firewall that the options describe."""

    def __init__(self, api: Api, name: str, tag: str, inbound: list[Document]) -> None:
        self.api, self.name, self.tag = api, name, check_tag(tag)
        rules = [{**rule, "sources": {"addresses": rule["sources"]}} for rule in inbound]
        self.wanted = {
            "name": name,
            "tags": [tag],
            "inbound_rules": spelled(rules, "sources"),
            "outbound_rules": spelled(OUTBOUND, "destinations"),
        }

    def find(self) -> Document | None:
        """Return the firewall of our name."""
        everything = self.api.every("firewalls.list", "firewalls")
        return next((item for item in everything if item["name"] == self.name), None)

    def ours(self, firewall: Document) -> bool:
        """Tell whether a firewall covers our tag."""
        return self.tag in (firewall.get("tags") or [])

    def present(self, *, check_mode: bool) -> Document:
        """Have the firewall."""
        found = self.find()
        if found and not self.ours(found):
            raise CloudError(
                f"A firewall called {self.name} ({found['id']}) exists and does not cover the tag {self.tag}, so it is not ours. Nothing was changed. "
                "Rename or remove it, or choose another droplet_name."
            )
        before, after = shown(found) if found else {}, shown(self.wanted)
        changed = before != after
        if changed and not check_mode:
            if found:
                body = {**self.wanted, "droplet_ids": found.get("droplet_ids") or []}
                self.api.call("firewalls.update", found["id"], body)
            else:
                self.api.ensure_tag(self.tag)
                self.create()
        return {"changed": changed, "firewall": after, "diff": {"before": before, "after": after}}

    def create(self) -> None:
        """Create it, once, whatever happens to the answer."""
        try:
            self.api.call("firewalls.create", self.wanted, created=self.find)
        except CloudError as error:
            if error.status != CONFLICT:
                raise
            raise CloudError(f"Another run has just created the firewall {self.name}; repeat the command.") from error

    def absent(self, *, check_mode: bool) -> Document:
        """Have no firewall, and no tag that nothing bears."""
        found = self.find()
        ours = found if found and self.ours(found) else None
        if ours and not check_mode:
            self.api.call("firewalls.delete", ours["id"])
        tag = self.api.call("tags.get", self.tag)
        # In check mode the droplet still bears it.
        free = bool(tag) and not tag["tag"]["resources"]["count"]
        if free and not check_mode:
            self.api.call("tags.delete", self.tag)
        before = (shown(ours) if ours else {}) | ({"tag": self.tag} if free else {})
        return {"changed": bool(ours or free), "firewall": {}, "diff": {"before": before, "after": {}}}


def main() -> None:
    """Run the module."""
    rule = {
        "protocol": {"type": "str", "choices": ["tcp", "udp", "icmp"], "required": True},
        "ports": {"type": "str", "default": "0"},
        "sources": {"type": "list", "elements": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec=arguments(
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            name={"type": "str", "required": True},
            tag={"type": "str", "required": True},
            inbound={"type": "list", "elements": "dict", "options": rule, "default": []},
        ),
        supports_check_mode=True,
    )
    given = module.params
    try:
        firewall = Firewall(Api(given["api_token"], given["api_url"]), given["name"], given["tag"], given["inbound"])
        act = firewall.present if given["state"] == "present" else firewall.absent
        result = act(check_mode=module.check_mode)
    except CloudError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
