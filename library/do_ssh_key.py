#!/usr/bin/python
"""Have a public SSH key registered."""

from __future__ import annotations

DOCUMENTATION = r"""
module: do_ssh_key
short_description: Have a public SSH key registered with DigitalOcean
description:
  - A key is known by its fingerprint. One that the account has already, under whatever name, is used as it is and never renamed or removed.
options:
  state:
    description: Whether the key is registered. C(absent) removes the keys that bear this name, and no other.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of a key that this module registers; it says whose the key is.
    type: str
    required: true
  public_key:
    description: The line of a C(.pub) file. Needed for C(present).
    type: str
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
- name: Register the operator's key
  do_ssh_key:
    name: mlflow-anywhere:mlflow
    public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
"""

RETURN = r"""
ssh_key:
  description: The key, empty when there is none.
  returned: always
  type: dict
  contains:
    fingerprint:
      description: How DigitalOcean knows it.
      type: str
    name:
      description: Its name in the account.
      type: str
"""

import base64
import binascii
import hashlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.digitalocean import Api, CloudError, arguments

Document = dict[str, Any]
KINDS = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")


def fingerprint(public_key: str) -> str:
    """Return the fingerprint of a public key as DigitalOcean writes it; refuse what is none."""
    try:
        kind, text = public_key.split()[:2]
        blob = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        kind, blob = "", b""
    if not kind.startswith(KINDS) or not blob:
        raise CloudError(
            "public_key (droplet_ssh_public_key) is no public SSH key; the one line of a file such as ~/.ssh/id_ed25519.pub is allowed. "
            "`ssh-keygen -t ed25519` makes a pair."
        )
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def present(api: Api, name: str, public_key: str, *, check_mode: bool) -> Document:
    """Have the key."""
    wanted = {"name": name, "fingerprint": fingerprint(public_key)}

    def found() -> Any:
        return api.call("ssh_keys.get", wanted["fingerprint"])

    answer = found()
    if answer:
        has = {key: answer["ssh_key"][key] for key in wanted}
        return {"changed": False, "ssh_key": has, "diff": {"before": has, "after": has}}
    if not check_mode:
        api.call("ssh_keys.create", {"name": name, "public_key": public_key.strip()}, created=found)
    return {"changed": True, "ssh_key": wanted, "diff": {"before": {}, "after": wanted}}


def absent(api: Api, name: str, *, check_mode: bool) -> Document:
    """Have no key of this name."""
    ours = [key for key in api.every("ssh_keys.list", "ssh_keys") if key["name"] == name]
    for key in ours if not check_mode else ():
        api.call("ssh_keys.delete", key["fingerprint"])
    before = {key["fingerprint"]: key["name"] for key in ours}
    return {"changed": bool(ours), "ssh_key": {}, "diff": {"before": before, "after": {}}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=arguments(
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            name={"type": "str", "required": True},
            public_key={"type": "str", "no_log": False},
        ),
        required_if=[("state", "present", ("public_key",))],
        supports_check_mode=True,
    )
    name, public_key = module.params["name"], module.params["public_key"]
    try:
        api = Api(module.params["api_token"], module.params["api_url"])
        if module.params["state"] == "present":
            result = present(api, name, public_key, check_mode=module.check_mode)
        else:
            result = absent(api, name, check_mode=module.check_mode)
    except CloudError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
