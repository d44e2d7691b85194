#!/usr/bin/python
"""Have a droplet, or have none."""

from __future__ import annotations

DOCUMENTATION = r"""
module: do_droplet
short_description: Have a DigitalOcean droplet, or have none
description:
  - Creates a droplet once and finds it again by its tag and name, also one that an interrupted run left half created. A droplet of the same name without
    the tag is somebody else's and never touched.
  - An existing droplet keeps its size, region and image. A declared size or region that differs is an error, what else differs a warning; both
    name the command.
options:
  state:
    description: Whether the droplet exists.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the droplet, which is its host name as well.
    type: str
    required: true
  tag:
    description: The tag that says whose the droplet is.
    type: str
    required: true
  size:
    description: Slug of the size. Needed to create.
    type: str
  region:
    description: Slug of the region. Needed to create.
    type: str
  image:
    description: Slug or number of the image. Needed to create.
    type: str
  ssh_keys:
    description: Fingerprints of registered keys that may log in as root.
    type: list
    elements: str
    default: []
  user_data:
    description: Configuration for cloud-init. Every process on the droplet can read it, so it holds no secret.
    type: str
    default: ''
  ipv6:
    description: Give it an IPv6 address.
    type: bool
    default: true
  monitoring:
    description: Install DigitalOcean's agent, which measures more than the hypervisor sees.
    type: bool
    default: false
  backups:
    description: Let DigitalOcean back it up, at an extra price.
    type: bool
    default: false
  vpc_uuid:
    description: Private network, empty for the region's default.
    type: str
    default: ''
  timeout:
    description: Seconds until the droplet must be active, or gone.
    type: int
    default: 300
  interval:
    description: Seconds between two looks at it.
    type: float
    default: 3
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
- name: Have the machine
  do_droplet:
    name: mlflow
    tag: mlflow-anywhere:mlflow
    size: s-2vcpu-4gb
    region: fra1
    image: debian-13-x64
    ssh_keys: ["3b:16:bf:e4:8b:00:8b:b8:59:8c:a9:d3:f0:19:45:fa"]
"""

RETURN = r"""
droplet:
  description: The droplet; without an id while check mode only would create it, empty when there is none.
  returned: always
  type: dict
  contains:
    id:
      description: Its number.
      type: int
    name:
      description: Its name.
      type: str
    status:
      description: C(new), C(active), C(off) or C(archive).
      type: str
    ipv4:
      description: Public address.
      type: str
    ipv6:
      description: Public IPv6 address, or empty.
      type: str
    private_ipv4:
      description: Address in the private network.
      type: str
    size:
      description: Slug of its size.
      type: str
    region:
      description: Slug of its region.
      type: str
    image:
      description: Slug or number of its image.
      type: str
    features:
      description: Features that are on.
      type: list
cost:
  description: What it costs, in one line; empty when there is none.
  returned: always
  type: str
removed:
  description: The droplet that was removed, or in check mode would be; empty when there was none.
  returned: always
  type: dict
created:
  description: Whether it was created, or in check mode would be.
  returned: always
  type: bool
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.digitalocean import Api, CloudError, addresses, arguments, check_tag, cost

Document = dict[str, Any]
# What can be switched on later, and how.
ACTIONS = {"ipv6": "enable-ipv6", "backups": "enable-backups"}


def described(droplet: Document) -> Document:
    """Return what the module tells of a droplet."""
    image = droplet.get("image") or {}
    return {
        "id": droplet["id"],
        "name": droplet["name"],
        "status": droplet["status"],
        **addresses(droplet),
        "size": droplet["size_slug"],
        "region": droplet["region"]["slug"],
        "image": str(image.get("slug") or image.get("id") or ""),
        "features": sorted(droplet.get("features") or []),
    }


class Droplet:
    """The droplet that the options describe."""

    def __init__(self, api: Api, options: Document) -> None:
        self.api = api
        self.options = options
        self.name: str = options["name"]
        self.tag = check_tag(options["tag"])

    def find(self) -> Document | None:
        """Return our droplet, if there is one."""
        ours = [droplet for droplet in self.api.droplets(self.tag) if droplet["name"] == self.name]
        if len(ours) > 1:
            numbers = ", ".join(str(droplet["id"]) for droplet in ours)
            raise CloudError(
                f"There are {len(ours)} droplets called {self.name} with the tag {self.tag} ({numbers}). Nothing was changed. Look which one "
                "holds your data, and remove the others with `doctl compute droplet delete NUMBER`."
            )
        return ours[0] if ours else None

    def strangers(self) -> str:
        """Return what bears our name without our tag, as the beginning of a message."""
        others = self.api.every("droplets.list", "droplets", name=self.name)
        numbers = ", ".join(str(droplet["id"]) for droplet in others if self.tag not in (droplet.get("tags") or []))
        return (
            f"A droplet called {self.name} (number {numbers}) exists without the tag {self.tag}, so it is not ours"
            if numbers
            else ""
        )

    def offered(self) -> Document:
        """Return the declared size, or refuse a size, region or image that is not offered and say what is."""
        size, region, image = (self.options[key] for key in ("size", "region", "image"))
        regions = {item["slug"] for item in self.api.every("regions.list", "regions") if item["available"]}
        if region not in regions:
            raise CloudError(f"region (droplet_region) is {region!r}; allowed: {', '.join(sorted(regions))}.")
        sizes = {item["slug"]: item for item in self.api.every("sizes.list", "sizes") if item["available"]}
        there = sorted(
            (item for item in sizes.values() if region in item["regions"]),
            key=lambda item: float(item["price_monthly"]),
        )
        if size not in {item["slug"] for item in there}:
            known = f" It is offered in {', '.join(sizes[size]['regions'])}." if size in sizes else ""
            listed = ", ".join(f"{item['slug']} (${item['price_monthly']:.2f} a month)" for item in there)
            raise CloudError(f"size (droplet_size) is {size!r}; allowed in {region}: {listed}.{known}")
        if not self.api.call("images.get", image):
            images = self.api.every("images.list", "images", type="distribution")
            slugs = ", ".join(sorted(item["slug"] for item in images if item["slug"]))
            raise CloudError(
                f"image (droplet_image) is {image!r}; allowed: {slugs}, or the number of an image of your own."
            )
        return dict(sizes[size])

    def body(self) -> Document:
        """Return what is posted to create it."""
        image = self.options["image"]
        wanted = {
            key: self.options[key] for key in ("ssh_keys", "ipv6", "monitoring", "backups", "user_data", "vpc_uuid")
        }
        plain = {key: value for key, value in wanted.items() if value not in ("", [])}
        return {
            "name": self.name,
            "size": self.options["size"],
            "region": self.options["region"],
            "image": int(image) if image.isdigit() else image,
            "tags": [self.tag],
            **plain,
        }

    def differences(self, droplet: Document) -> list[str]:
        """Return what differs from the declaration and may; refuse what may not."""
        has, wants, number = described(droplet), self.options, droplet["id"]
        if wants["size"] and has["size"] != wants["size"]:
            raise CloudError(
                f"size (droplet_size) is {wants['size']!r}, but the droplet {self.name} is {has['size']!r}. Nothing was changed. To resize it, which "
                f"takes it offline: `doctl compute droplet-action power-off {number} --wait && doctl compute droplet-action resize {number} "
                f"--size {wants['size']} --wait && doctl compute droplet-action power-on {number} --wait`. To keep it, write {has['size']}."
            )
        if wants["region"] and has["region"] != wants["region"]:
            raise CloudError(
                f"region (droplet_region) is {wants['region']!r}, but the droplet {self.name} is in {has['region']!r}, and droplets do not move. Nothing "
                f"was changed. Write {has['region']}, or choose another droplet_name for a second machine."
            )
        warnings = []
        if wants["image"] and wants["image"] not in {has["image"], str(droplet["image"].get("id"))}:
            warnings.append(
                f"image (droplet_image) is {wants['image']!r}, the droplet {self.name} was made of {has['image']!r} and keeps it; its system is "
                "upgraded from inside."
            )
        missing = [key for key in ACTIONS if wants[key] and key not in has["features"]]
        return warnings + [
            f"{key} (droplet_{key}) is true, but the droplet {self.name} has it not: `doctl compute droplet-action {ACTIONS[key]} {number}`."
            for key in missing
        ]

    def await_active(self, droplet: Document) -> Document:
        """Return the droplet once it runs and has an address."""
        until = time.monotonic() + self.options["timeout"]
        while droplet["status"] != "active" or not addresses(droplet)["ipv4"]:
            if time.monotonic() > until:
                raise CloudError(
                    f"The droplet {self.name} ({droplet['id']}) is still {droplet['status']!r} after {self.options['timeout']} s. It is not lost: the "
                    "same command finds it again and goes on waiting."
                )
            time.sleep(self.options["interval"])
            answer = self.api.call("droplets.get", droplet["id"])
            if not answer:
                raise CloudError(f"The droplet {self.name} ({droplet['id']}) was removed while it was waited for.")
            droplet = answer["droplet"]
        return droplet

    def create(self) -> Document:
        """Create it, once, whatever happens to the answer."""
        answer = self.api.call("droplets.create", self.body(), created=self.find)
        droplet: Document = answer.get("droplet") or answer
        return self.await_active(droplet)

    def remove(self, droplet: Document) -> None:
        """Remove it and wait until it is gone."""
        until = time.monotonic() + self.options["timeout"]
        asked = False
        while answer := self.api.call("droplets.get", droplet["id"]):
            # One that is being created cannot be removed yet.
            if not asked and not answer["droplet"].get("locked"):
                self.api.call("droplets.destroy", droplet["id"])
                asked = True
                continue
            if time.monotonic() > until:
                raise CloudError(
                    f"The droplet {self.name} ({droplet['id']}) is still there after {self.options['timeout']} s; repeat the command."
                )
            time.sleep(self.options["interval"])


def present(droplet: Droplet, *, check_mode: bool) -> Document:
    """Have the droplet."""
    found = droplet.find()
    if found:
        warnings = droplet.differences(found)
        before = described(found)
        changed = found["status"] == "off"
        if not check_mode:
            if changed:
                droplet.api.call("droplet_actions.post", found["id"], {"type": "power_on"})
            found = droplet.await_active(found)
        has = described(found)
        # A droplet that is awaited only was created by an earlier run.
        after = {**has, "status": "active"} if changed else {**before, "status": has["status"]}
        return {
            "changed": changed,
            "created": False,
            "removed": {},
            "droplet": has,
            "cost": cost(found["size"], has["region"]),
            "warnings": warnings,
            "diff": {"before": before, "after": after},
        }
    if stranger := droplet.strangers():
        raise CloudError(
            f"{stranger}, and a second one of this name would be confused with it. Choose another droplet_name, or tag yours."
        )
    size = droplet.offered()
    wanted = droplet.body()
    has = (
        described(droplet.create())
        if not check_mode
        else {"name": droplet.name, "size": wanted["size"], "region": wanted["region"]}
    )
    return {
        "changed": True,
        "created": True,
        "removed": {},
        "droplet": has,
        "cost": cost(size, wanted["region"]),
        "warnings": [],
        "diff": {"before": {}, "after": wanted},
    }


def absent(droplet: Droplet, *, check_mode: bool) -> Document:
    """Have none."""
    found = droplet.find()
    stranger = "" if found else droplet.strangers()
    if found and not check_mode:
        droplet.remove(found)
    removed = described(found) if found else {}
    return {
        "changed": bool(found),
        "created": False,
        "removed": removed,
        "droplet": {},
        "cost": "",
        "warnings": [f"{stranger} and stays."] if stranger else [],
        "diff": {"before": removed, "after": {}},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=arguments(
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            name={"type": "str", "required": True},
            tag={"type": "str", "required": True},
            size={"type": "str"},
            region={"type": "str"},
            image={"type": "str"},
            ssh_keys={"type": "list", "elements": "str", "default": [], "no_log": False},
            user_data={"type": "str", "default": ""},
            ipv6={"type": "bool", "default": True},
            monitoring={"type": "bool", "default": False},
            backups={"type": "bool", "default": False},
            vpc_uuid={"type": "str", "default": ""},
            timeout={"type": "int", "default": 300},
            interval={"type": "float", "default": 3},
        ),
        required_if=[("state", "present", ("size", "region", "image"))],
        supports_check_mode=True,
    )
    act = {"present": present, "absent": absent}[module.params["state"]]
    try:
        api = Api(module.params["api_token"], module.params["api_url"])
        result = act(Droplet(api, module.params), check_mode=module.check_mode)
    except CloudError as error:
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
