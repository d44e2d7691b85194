#!/usr/bin/python
"""Have an address that outlives the droplet it is assigned to."""

from __future__ import annotations

DOCUMENTATION = r"""
module: do_reserved_ip
short_description: Have a reserved DigitalOcean address assigned to a droplet
description:
  - Takes the address that is given, or one that the droplet has, or one of ours that is free, or makes a new one.
  - Reserved addresses bear no tags. A tag that names the address (C(TAG:ip:10-0-0-1)) says that we made it; only such a one is ever released.
options:
  state:
    description: Whether there is one. C(absent) releases those that this module made.
    type: str
    choices: [present, absent]
    default: present
  tag:
    description: Tag of the droplet.
    type: str
    required: true
  droplet_id:
    description: The droplet. Without it, in check mode, nothing is known of it yet.
    type: int
  address:
    description: A reserved address of the account to use, empty to let the module choose.
    type: str
    default: ''
  timeout:
    description: Seconds until the address must be assigned.
    type: int
    default: 120
  interval:
    description: Seconds between two looks at it.
    type: float
    default: 2
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
- name: Have an address that survives the droplet
  do_reserved_ip:
    tag: mlflow-anywhere:mlflow
    droplet_id: 3164494
"""

RETURN = r"""
address:
  description: The reserved address; empty when there is none, or in check mode when it would be a new one.
  returned: always
  type: str
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.digitalocean import Api, CloudError, arguments, check_tag

Document = dict[str, Any]


def holder(reserved: Document) -> int | None:
    """Return the number of the droplet that an address is assigned to."""
    droplet = reserved.get("droplet") or {}
    return droplet.get("id")


class Reserved:
    """The reserved addresses of a machine."""

    def __init__(self, api: Api, options: Document) -> None:
        self.api, self.options = api, options
        self.tag = check_tag(options["tag"])
        self.droplet: int | None = options["droplet_id"]

    def every(self) -> list[Document]:
        """Return the account's reserved addresses."""
        return list(self.api.every("reserved_ips.list", "reserved_ips"))

    def note(self, address: str) -> str:
        """Return the tag that says that we made an address."""
        return f"{self.tag}:ip:{address.replace('.', '-')}"

    def made(self) -> list[str]:
        """Return the addresses that we made, also those that are gone."""
        beginning = self.note("")
        tags = [item["name"] for item in self.api.every("tags.list", "tags")]
        return [tag.removeprefix(beginning).replace("-", ".") for tag in tags if tag.startswith(beginning)]

    def theirs(self, reserved: Document) -> bool:
        """Tell whether an address is assigned to a droplet that is not ours."""
        droplet = reserved.get("droplet") or {}
        return bool(droplet) and self.tag not in (droplet.get("tags") or [])

    def choose(self) -> Document | None:
        """Return the address to use, unless a new one must be made."""
        reserved = {item["ip"]: item for item in self.every()}
        if wanted := self.options["address"]:
            if wanted not in reserved:
                listed = ", ".join(reserved) or "none"
                raise CloudError(
                    f"address (droplet_reserved_ip_address) is {wanted!r}; the account has {listed}. Empty makes a new one."
                )
            if self.theirs(reserved[wanted]):
                raise CloudError(
                    f"The reserved address {wanted} is assigned to the droplet {reserved[wanted]['droplet']['name']}, which is not ours. Nothing was "
                    "changed. Unassign it first, or choose another droplet_reserved_ip_address."
                )
            return reserved[wanted]
        has = [item for item in reserved.values() if self.droplet and holder(item) == self.droplet]
        free = [reserved[ip] for ip in self.made() if ip in reserved and not holder(reserved[ip])]
        return next(iter(has + free), None)

    def assign(self, reserved: Document) -> None:
        """Assign an address and wait until it is."""
        address, until = reserved["ip"], time.monotonic() + self.options["timeout"]
        if holder(reserved) != self.droplet:
            self.api.call("reserved_ips_actions.post", address, {"type": "assign", "droplet_id": self.droplet})
        while holder(self.api.call("reserved_ips.get", address)["reserved_ip"]) != self.droplet:
            if time.monotonic() > until:
                raise CloudError(
                    f"The address {address} is not assigned after {self.options['timeout']} s; repeat the command."
                )
            time.sleep(self.options["interval"])

    def present(self, *, check_mode: bool) -> Document:
        """Have an address assigned."""
        chosen = self.choose()
        changed = not chosen or not self.droplet or holder(chosen) != self.droplet
        before = {"address": chosen["ip"], "droplet": holder(chosen)} if chosen else {}
        if changed and not check_mode:
            if not self.droplet:
                raise CloudError("droplet_id is missing: an address is assigned to a droplet that exists.")
            if not chosen:
                answer = self.api.call("reserved_ips.create", {"droplet_id": self.droplet}, created=self.choose)
                chosen = answer.get("reserved_ip", answer)
                self.api.ensure_tag(self.note(chosen["ip"]))
            self.assign(chosen)
        address = chosen["ip"] if chosen else ""
        after = {"address": address, "droplet": self.droplet} if changed else before
        return {"changed": changed, "address": address, "warnings": [], "diff": {"before": before, "after": after}}

    def absent(self, *, check_mode: bool) -> Document:
        """Release what we made."""
        reserved = {item["ip"]: item for item in self.every()}
        made = self.made()
        kept = [ip for ip in made if ip in reserved and self.theirs(reserved[ip])]
        gone = [ip for ip in made if ip not in kept]
        for address in gone if not check_mode else ():
            if address in reserved:
                self.api.call("reserved_ips.delete", address)
            self.api.call("tags.delete", self.note(address))
        return {
            "changed": bool(gone),
            "address": "",
            "warnings": [
                f"The reserved address {ip} now belongs to the droplet {reserved[ip]['droplet']['name']} and stays."
                for ip in kept
            ],
            "diff": {"before": {"addresses": gone} if gone else {}, "after": {}},
        }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=arguments(
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            tag={"type": "str", "required": True},
            droplet_id={"type": "int"},
            address={"type": "str", "default": ""},
            timeout={"type": "int", "default": 120},
            interval={"type": "float", "default": 2},
        ),
        supports_check_mode=True,
    )
    try:
        reserved = Reserved(Api(module.params["api_token"], module.params["api_url"]), module.params)
        act = reserved.present if module.params["state"] == "present" else reserved.absent
        result = act(check_mode=module.check_mode)
    except CloudError as error:
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
