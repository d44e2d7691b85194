#!/usr/bin/python
"""Have a host name that leads to a droplet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: do_domain_record
short_description: Have a host name that leads to a droplet, in a zone that DigitalOcean serves
description:
  - Writes one A record and, with an IPv6 address, one AAAA record into the zone of the account that the name belongs to.
  - Records bear no tags. A TXT record C(_mlflow-anywhere.NAME) that holds the tag says that they are ours. Records of the name without it are somebody
    else's; where they say the same already nothing is done, else nothing is touched.
options:
  state:
    description: Whether the name leads there. C(absent) removes the records that are ours.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: The full host name.
    type: str
    required: true
  tag:
    description: The tag that says whose the records are.
    type: str
    required: true
  ipv4:
    description: Address for the A record. Empty in check mode while there is no droplet yet.
    type: str
    default: ''
  ipv6:
    description: Address for the AAAA record, empty for none.
    type: str
    default: ''
  ttl:
    description: Seconds that others may remember the answer.
    type: int
    default: 300
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
- name: Let the name lead to the droplet
  do_domain_record:
    name: ml.example.org
    tag: mlflow-anywhere:mlflow
    ipv4: 10.20.0.7
"""

RETURN = r"""
zone:
  description: The zone that the name belongs to.
  returned: always
  type: str
records:
  description: Type and address of each record.
  returned: always
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.digitalocean import Api, CloudError, arguments, check_tag

Document = dict[str, Any]
NOTE = "_mlflow-anywhere"
TYPES = ("A", "AAAA", "CNAME")


class Name:
    """A host name, and the records of the account that have to do with it."""

    def __init__(self, api: Api, options: Document) -> None:
        self.api = api
        self.name: str = options["name"].lower().rstrip(".")
        self.tag = check_tag(options["tag"])
        self.ttl: int = options["ttl"]
        zones = [item["name"] for item in api.every("domains.list", "domains")]
        fitting = [zone for zone in zones if self.name == zone or self.name.endswith(f".{zone}")]
        if not fitting and options["state"] == "present":
            raise CloudError(
                f"name (droplet_domain) is {self.name!r}; the account serves the zones {', '.join(zones) or 'none'}. Add the zone with `doctl compute "
                "domain create ZONE`, or let your provider's record lead to the droplet and set droplet_domain_record to false."
            )
        # Without a zone there is nothing of ours to remove.
        self.zone: str = max(fitting, key=len, default="")
        self.relative = self.name.removesuffix(self.zone).rstrip(".") or "@"
        self.note = NOTE if self.relative == "@" else f"{NOTE}.{self.relative}"
        self.records = [item for item in self.listed(self.relative) if item["type"] in TYPES]
        self.notes = [item for item in self.listed(self.note) if item["type"] == "TXT"]

    def listed(self, relative: str) -> list[Document]:
        """Return the records of a name in the zone."""
        full = self.zone if relative == "@" else f"{relative}.{self.zone}"
        found = self.api.every("domains.list_records", "domain_records", self.zone, name=full) if self.zone else []
        return [item for item in found if item["name"] == relative]

    @property
    def ours(self) -> bool:
        """Whether the records are ours, or would be."""
        return any(item["data"].strip('"') == self.tag for item in self.notes)

    def write(self, kind: str, name: str, data: str) -> None:
        """Create a record, once, whatever happens to the answer."""

        def created() -> Any:
            return next((item for item in self.listed(name) if (item["type"], item["data"]) == (kind, data)), None)

        body = {"type": kind, "name": name, "data": data, "ttl": self.ttl}
        self.api.call("domains.create_record", self.zone, body, created=created)

    def remove(self, record: Document) -> None:
        """Remove a record."""
        self.api.call("domains.delete_record", self.zone, record["id"])

    def present(self, wanted: dict[str, str], *, check_mode: bool) -> Document:
        """Let the name lead to the addresses."""
        before = sorted((item["type"], item["data"]) for item in self.records)
        after = sorted(wanted.items())
        foreign = bool(self.records) and not self.ours
        if foreign and not set(after) <= set(before):
            listed = ", ".join(f"{kind} {data}" for kind, data in before)
            raise CloudError(
                f"{self.name} has records that are not ours ({listed}). Nothing was changed. Remove them, or choose another droplet_domain, or set "
                "droplet_domain_record to false."
            )
        changed = not foreign and before != after
        if changed and not check_mode:
            if not self.ours:
                self.write("TXT", self.note, self.tag)
            for kind, data in wanted.items():
                same = [item for item in self.records if item["type"] == kind]
                if not same:
                    self.write(kind, self.relative, data)
                elif same[0]["data"] != data:
                    self.api.call("domains.patch_record", self.zone, same[0]["id"], {"type": kind, "data": data})
            kept = {next((item["id"] for item in self.records if item["type"] == kind), None) for kind in wanted}
            for record in self.records:
                if record["id"] not in kept:
                    self.remove(record)
        return {
            "changed": changed,
            "records": dict(after),
            "diff": {"before": dict(before), "after": dict(after if changed else before)},
        }

    def absent(self, *, check_mode: bool) -> Document:
        """Have no records of ours."""
        gone = [*self.records, *self.notes] if self.ours else []
        # The note goes last: a run that is cut off can be repeated.
        for record in gone if not check_mode else ():
            self.remove(record)
        return {
            "changed": bool(gone),
            "records": {},
            "diff": {"before": {item["type"]: item["data"] for item in gone}, "after": {}},
        }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=arguments(
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            name={"type": "str", "required": True},
            tag={"type": "str", "required": True},
            ipv4={"type": "str", "default": ""},
            ipv6={"type": "str", "default": ""},
            ttl={"type": "int", "default": 300},
        ),
        supports_check_mode=True,
    )
    given = module.params
    unknown = "(known once the droplet is there)"
    wanted = {"A": given["ipv4"] or (unknown if module.check_mode else ""), "AAAA": given["ipv6"]}
    if given["state"] == "present" and not wanted["A"]:
        module.fail_json(msg="ipv4 is empty: a name leads to a droplet that exists.")
    try:
        name = Name(Api(given["api_token"], given["api_url"]), given)
        if given["state"] == "present":
            result = name.present({kind: data for kind, data in wanted.items() if data}, check_mode=module.check_mode)
        else:
            result = name.absent(check_mode=module.check_mode)
    except CloudError as error:
        module.fail_json(msg=str(error))
    module.exit_json(zone=name.zone, **result)


if __name__ == "__main__":
    main()
