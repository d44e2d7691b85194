"""A double of DigitalOcean's API, as far as the product calls it: answers shaped by the public specification, faults on request.

`with served(Cloud()) as url:` answers on a loopback address. What a droplet is beyond its description is the backend's business: here nothing, in the
scenario `droplet` a real test host (machines.py).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

TOKEN = "dop_v1_double"
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
TAG = re.compile(r"[A-Za-z0-9:_-]{1,255}")
FEATURES = ["backups", "ipv6", "metadata", "storage", "image_transfer"]

Document = dict[str, Any]
Addresses = dict[str, list[Document]]


class Backend(Protocol):
    """What makes droplets of descriptions."""

    def start(self, droplet: Document, keys: list[str], user_data: str) -> Addresses:
        """Start the machine and return its `networks`."""

    def stop(self, droplet: Document) -> None:
        """Remove the machine."""


class Imagined:
    """Droplets that exist in their description only."""

    def start(self, droplet: Document, keys: list[str], user_data: str) -> Addresses:
        del keys, user_data
        last = droplet["id"] % 250 + 1
        v6 = [{"ip_address": f"fd00::{last:x}", "netmask": 64, "gateway": "fd00::1", "type": "public"}]
        return {
            "v4": [address(f"10.19.0.{last}", "private"), address(f"10.20.0.{last}", "public")],
            "v6": v6 if "ipv6" in droplet["features"] else [],
        }

    def stop(self, droplet: Document) -> None:
        pass


def address(ip: str, kind: str) -> Document:
    """An entry of a droplet's networks."""
    return {"ip_address": ip, "netmask": "255.255.255.0", "gateway": ip.rpartition(".")[0] + ".1", "type": kind}


@dataclass
class Fault:
    """The next requests of this method and path are answered wrongly; `after` means once they were carried out."""

    method: str
    path: str
    status: int = 500  # 0: the connection ends without an answer
    times: int = 1
    after: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "Unexpected server-side error"
    pause: float = 0  # seconds that the answer comes too late


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, identifier: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"id": identifier, "message": message, "request_id": "4d9d8375-3c56-4925-a3e7-eb137fed17e9"}


def missing() -> RefusedError:
    return RefusedError(404, "not_found", "The resource you requested could not be found.")


def unprocessable(message: str) -> RefusedError:
    return RefusedError(422, "unprocessable_entity", message)


def size(slug: str, vcpus: int, memory: int, monthly: float, regions: list[str]) -> Document:
    """An entry of /v2/sizes."""
    return {
        "slug": slug,
        "memory": memory,
        "vcpus": vcpus,
        "disk": 25 * vcpus,
        "transfer": float(vcpus),
        "price_monthly": monthly,
        "price_hourly": round(monthly / 672, 5),
        "regions": regions,
        "available": True,
        "description": "Basic",
    }


class Cloud:
    """The account: what exists in it, what was asked of it, and what goes wrong next."""

    def __init__(self, backend: Backend | None = None) -> None:
        self.backend: Backend = backend or Imagined()
        self.token = TOKEN
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.polls_until_active = 0
        self.lock = threading.RLock()
        self.numbers = itertools.count(3164494)
        both = ["fra1", "nyc3"]
        self.sizes = [
            size("s-1vcpu-1gb", 1, 1024, 6.0, both),
            size("s-1vcpu-2gb", 1, 2048, 12.0, both),
            size("s-2vcpu-4gb", 2, 4096, 24.0, both),
            size("c-32", 32, 65536, 672.0, ["nyc3"]),
        ]
        self.regions = [
            self.region("fra1", "Frankfurt 1", both[:1]),
            self.region("nyc3", "New York 3", both),
            {**self.region("nyc2", "New York 2", []), "available": False},
        ]
        self.images = [self.image(number, suite) for number, suite in enumerate(("debian-12-x64", "debian-13-x64"), 1)]
        self.droplets: dict[int, Document] = {}
        self.waiting: dict[int, tuple[int, list[str], str]] = {}
        self.keys: dict[int, Document] = {}
        self.firewalls: dict[str, Document] = {}
        self.reserved: dict[str, int | None] = {}
        self.zones: dict[str, dict[int, Document]] = {}
        self.tags: set[str] = set()

    def region(self, slug: str, name: str, sells: list[str]) -> Document:
        sizes = [item["slug"] for item in self.sizes if sells and slug in item["regions"]]
        return {"slug": slug, "name": name, "available": True, "features": FEATURES, "sizes": sizes}

    def image(self, number: int, slug: str) -> Document:
        return {
            "id": number,
            "name": slug.split("-")[1] + " x64",
            "distribution": "Debian",
            "slug": slug,
            "public": True,
            "regions": ["fra1", "nyc3"],
            "created_at": "2026-01-01T00:00:00Z",
            "min_disk_size": 7,
            "type": "base",
            "size_gigabytes": 0.5,
            "description": slug,
            "tags": [],
            "status": "available",
        }

    # Droplets

    def create_droplet(self, body: Document) -> Document:
        if not NAME.fullmatch(body["name"]):
            raise unprocessable("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")
        region = next((item for item in self.regions if item["slug"] == body["region"] and item["available"]), None)
        if region is None:
            raise unprocessable("You specified an invalid region for Droplet creation.")
        sold = next((item for item in self.sizes if item["slug"] == body["size"]), None)
        if sold is None or region["slug"] not in sold["regions"]:
            raise unprocessable("You specified an invalid size for Droplet creation.")
        image = next((item for item in self.images if body["image"] in {item["slug"], item["id"]}), None)
        if image is None:
            raise unprocessable("You specified an invalid image for Droplet creation.")
        keys = [self.find_key(str(key)) for key in body.get("ssh_keys") or []]
        tags = body.get("tags") or []
        if not all(TAG.fullmatch(tag) for tag in tags):
            raise unprocessable("Tags may contain letters, numbers, colons, dashes, and underscores.")
        number = next(self.numbers)
        wanted = {"backups": "backups", "ipv6": "ipv6", "monitoring": "monitoring"}
        droplet: Document = {
            "id": number,
            "name": body["name"],
            "memory": sold["memory"],
            "vcpus": sold["vcpus"],
            "disk": sold["disk"],
            "locked": True,
            "status": "new",
            "kernel": None,
            "created_at": "2026-11-26T10:00:00Z",
            "features": [feature for option, feature in wanted.items() if body.get(option)],
            "backup_ids": [],
            "snapshot_ids": [],
            "next_backup_window": None,
            "image": image,
            "volume_ids": [],
            "size": sold,
            "size_slug": sold["slug"],
            "networks": {"v4": [], "v6": []},
            "region": region,
            "tags": tags,
            "vpc_uuid": body.get("vpc_uuid") or "760e09ef-dc84-11e8-981e-3cfdfeaae000",
        }
        self.tags |= set(tags)
        self.droplets[number] = droplet
        self.waiting[number] = (
            self.polls_until_active,
            [key["public_key"] for key in keys],
            body.get("user_data") or "",
        )
        links = {"actions": [{"id": next(self.numbers), "rel": "create", "href": "https://double/v2/actions/1"}]}
        return {"droplet": json.loads(json.dumps(droplet)), "links": links}

    def progress(self, number: int) -> None:
        """Let a droplet that was asked for often enough become a machine."""
        if number not in self.waiting:
            return
        polls, keys, user_data = self.waiting[number]
        if polls:
            self.waiting[number] = (polls - 1, keys, user_data)
            return
        del self.waiting[number]
        droplet = self.droplets[number]
        droplet["networks"] = self.backend.start(droplet, keys, user_data)
        droplet |= {"status": "active", "locked": False}

    def get_droplet(self, number: str) -> Document:
        droplet = self.droplets.get(int(number))
        if droplet is None:
            raise missing()
        self.progress(int(number))
        return droplet

    def delete_droplet(self, number: str) -> None:
        droplet = self.get_droplet(number)
        if droplet["locked"]:
            raise unprocessable("Droplet already has a pending event.")
        self.backend.stop(droplet)
        del self.droplets[droplet["id"]]
        self.reserved = {ip: None if holder == droplet["id"] else holder for ip, holder in self.reserved.items()}

    def act(self, number: str, body: Document) -> Document:
        droplet = self.get_droplet(number)
        if body["type"] != "power_on":
            raise unprocessable(f"The double knows no action {body['type']}.")
        droplet["status"] = "active"
        return {"action": {"id": next(self.numbers), "status": "in-progress", "type": body["type"]}}

    # Keys

    def find_key(self, name: str) -> Document:
        for key in self.keys.values():
            if name in {str(key["id"]), key["fingerprint"]}:
                return key
        raise missing()

    def create_key(self, body: Document) -> Document:
        try:
            blob = base64.b64decode(body["public_key"].split()[1])
        except (IndexError, ValueError) as error:
            raise unprocessable("Key invalid, key should be of the format `type key [comment]`") from error
        digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
        fingerprint = ":".join(digest[i : i + 2] for i in range(0, 32, 2))
        if any(key["fingerprint"] == fingerprint for key in self.keys.values()):
            raise unprocessable("SSH Key is already in use on your account")
        number = next(self.numbers)
        self.keys[number] = {
            "id": number,
            "fingerprint": fingerprint,
            "public_key": body["public_key"],
            "name": body["name"],
        }
        return {"ssh_key": self.keys[number]}

    def delete_key(self, name: str) -> None:
        del self.keys[self.find_key(name)["id"]]

    # Firewalls

    def write_firewall(self, body: Document, identifier: str | None = None) -> Document:
        others = [item for item in self.firewalls.values() if item["id"] != identifier]
        if not NAME.fullmatch(body["name"]):
            raise unprocessable("invalid firewall name")
        if any(item["name"] == body["name"] for item in others):
            raise RefusedError(409, "conflict", "duplicate name")
        if unknown := set(body.get("tags") or []) - self.tags:
            raise unprocessable(f"tags {sorted(unknown)} do not exist")
        number = identifier or f"bb4b2611-3d72-467b-8602-{next(self.numbers):012d}"
        self.firewalls[number] = {
            "id": number,
            "name": body["name"],
            "status": "waiting",
            "created_at": "2026-11-26T10:00:00Z",
            "pending_changes": [],
            "droplet_ids": body.get("droplet_ids") or [],
            "tags": body.get("tags") or [],
            "inbound_rules": [self.rule(rule) for rule in body.get("inbound_rules") or []],
            "outbound_rules": [self.rule(rule) for rule in body.get("outbound_rules") or []],
        }
        return {"firewall": self.firewalls[number]}

    @staticmethod
    def rule(rule: Document) -> Document:
        """A rule as the API writes it: all ports, and those of ICMP, are `0`."""
        everything = rule["protocol"] == "icmp" or rule.get("ports") in {"all", "0"}
        if not everything and not re.fullmatch(r"\d+(-\d+)?", str(rule.get("ports"))):
            raise unprocessable("ports must be specified")
        return {**rule, "ports": "0" if everything else rule["ports"]}

    # Tags

    def tag(self, name: str) -> Document:
        if name not in self.tags:
            raise missing()
        holders = [droplet for droplet in self.droplets.values() if name in droplet["tags"]]
        return {"name": name, "resources": {"count": len(holders), "droplets": {"count": len(holders)}}}

    def create_tag(self, body: Document) -> Document:
        if not TAG.fullmatch(body["name"]):
            raise unprocessable("Tag name is invalid")
        if body["name"] in self.tags:
            raise unprocessable("Tag already exists")
        self.tags.add(body["name"])
        return {"tag": self.tag(body["name"])}

    def delete_tag(self, name: str) -> None:
        self.tag(name)
        self.tags.remove(name)
        for holder in [*self.droplets.values(), *self.firewalls.values()]:
            holder["tags"] = [tag for tag in holder["tags"] if tag != name]

    # Reserved addresses

    def reserved_ip(self, ip: str) -> Document:
        if ip not in self.reserved:
            raise missing()
        droplet = self.droplets.get(self.reserved[ip] or 0)
        return {"ip": ip, "region": self.regions[0], "droplet": droplet, "locked": False, "project_id": "4e1bfbc3"}

    def create_reserved(self, body: Document) -> Document:
        if "droplet_id" in body and body["droplet_id"] not in self.droplets:
            raise unprocessable("Droplet not found")
        ip = f"10.21.0.{len(self.reserved) + 1}"
        self.reserved[ip] = body.get("droplet_id")
        return {"reserved_ip": self.reserved_ip(ip), "links": {}}

    def act_reserved(self, ip: str, body: Document) -> Document:
        self.reserved_ip(ip)
        self.reserved[ip] = body["droplet_id"] if body["type"] == "assign" else None
        return {"action": {"id": next(self.numbers), "status": "in-progress", "type": f"{body['type']}_ip"}}

    def delete_reserved(self, ip: str) -> None:
        self.reserved_ip(ip)
        del self.reserved[ip]

    # Domains

    def zone(self, name: str) -> dict[int, Document]:
        if name not in self.zones:
            raise missing()
        return self.zones[name]

    def write_record(self, zone: str, body: Document, number: str = "") -> Document:
        records = self.zone(zone)
        if number and int(number) not in records:
            raise missing()
        key = int(number) if number else next(self.numbers)
        plain = {"priority": None, "port": None, "ttl": 1800, "weight": None, "flags": None, "tag": None}
        records[key] = {**plain, **records.get(key, {}), **body, "id": key}
        return {"domain_record": records[key]}

    def list_records(self, zone: str, asked: dict[str, str]) -> list[Document]:
        found = list(self.zone(zone).values())
        if "type" in asked:
            found = [record for record in found if record["type"] == asked["type"]]
        if "name" in asked:  # full names, while records carry relative ones
            full = {"@": zone}
            found = [item for item in found if full.get(item["name"], f"{item['name']}.{zone}") == asked["name"]]
        return found

    def delete_record(self, zone: str, number: str) -> None:
        if int(number) not in self.zone(zone):
            raise missing()
        del self.zones[zone][int(number)]

    # Everything over HTTP

    def list_droplets(self, asked: dict[str, str]) -> list[Document]:
        if "tag_name" in asked and "name" in asked:
            raise unprocessable("tag_name can not be combined with name")
        if asked.get("tag_name", "") not in {"", *self.tags}:
            raise missing()
        found = list(self.droplets.values())
        if "tag_name" in asked:
            found = [droplet for droplet in found if asked["tag_name"] in droplet["tags"]]
        if "name" in asked:
            found = [droplet for droplet in found if droplet["name"].lower() == asked["name"].lower()]
        return found

    def routes(self, asked: dict[str, str], body: Document) -> list[tuple[str, str, int, Callable[..., Any]]]:
        """Method, path, status of success, what is done. A list is answered in pages under the last word of its path."""
        account = {"account": {"email": "operator@example.org", "droplet_limit": 25, "status": "active"}}
        kinds = [image for image in self.images if asked.get("type") != "application"]
        return [
            ("GET", "/account", 200, lambda: account),
            ("GET", "/sizes", 200, lambda: self.sizes),
            ("GET", "/regions", 200, lambda: self.regions),
            ("GET", "/images", 200, lambda: kinds),
            ("GET", "/images/(.+)", 200, lambda name: {"image": self.find_image(name)}),
            ("GET", "/droplets", 200, lambda: self.list_droplets(asked)),
            ("POST", "/droplets", 202, lambda: self.create_droplet(body)),
            ("GET", "/droplets/(.+)", 200, lambda number: {"droplet": self.get_droplet(number)}),
            ("DELETE", "/droplets/(.+)", 204, self.delete_droplet),
            ("POST", "/droplets/(.+)/actions", 201, lambda number: self.act(number, body)),
            ("GET", "/account/keys", 200, lambda: list(self.keys.values())),
            ("POST", "/account/keys", 201, lambda: self.create_key(body)),
            ("GET", "/account/keys/(.+)", 200, lambda name: {"ssh_key": self.find_key(name)}),
            ("DELETE", "/account/keys/(.+)", 204, self.delete_key),
            ("GET", "/firewalls", 200, lambda: list(self.firewalls.values())),
            ("POST", "/firewalls", 202, lambda: self.write_firewall(body)),
            ("PUT", "/firewalls/(.+)", 200, lambda name: self.write_firewall(body, self.firewall(name)["id"])),
            ("DELETE", "/firewalls/(.+)", 204, lambda name: self.firewalls.pop(self.firewall(name)["id"])),
            ("GET", "/tags", 200, lambda: [self.tag(name) for name in sorted(self.tags)]),
            ("POST", "/tags", 201, lambda: self.create_tag(body)),
            ("GET", "/tags/(.+)", 200, lambda name: {"tag": self.tag(name)}),
            ("DELETE", "/tags/(.+)", 204, self.delete_tag),
            ("GET", "/reserved_ips", 200, lambda: [self.reserved_ip(ip) for ip in self.reserved]),
            ("POST", "/reserved_ips", 202, lambda: self.create_reserved(body)),
            ("GET", "/reserved_ips/(.+)", 200, lambda ip: {"reserved_ip": self.reserved_ip(ip)}),
            ("POST", "/reserved_ips/(.+)/actions", 201, lambda ip: self.act_reserved(ip, body)),
            ("DELETE", "/reserved_ips/(.+)", 204, self.delete_reserved),
            ("GET", "/domains", 200, lambda: [{"name": zone, "ttl": 1800, "zone_file": ""} for zone in self.zones]),
            ("GET", "/domains/(.+)/records", 200, lambda zone: self.list_records(zone, asked)),
            ("POST", "/domains/(.+)/records", 201, lambda zone: self.write_record(zone, body)),
            ("PATCH", "/domains/(.+)/records/(.+)", 200, lambda zone, number: self.write_record(zone, body, number)),
            ("DELETE", "/domains/(.+)/records/(.+)", 204, self.delete_record),
        ]

    def find_image(self, name: str) -> Document:
        for image in self.images:
            if name in {image["slug"], str(image["id"])}:
                return image
        raise missing()

    def firewall(self, name: str) -> Document:
        if name not in self.firewalls:
            raise missing()
        return self.firewalls[name]

    def answer(self, method: str, target: str, headers: dict[str, str], body: Document) -> tuple[int, Document | None]:
        """Carry a request out."""
        url = urlsplit(target)
        asked = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if headers.get("authorization") != f"Bearer {self.token}":
            raise RefusedError(401, "Unauthorized", "Unable to authenticate you")
        path = url.path.removeprefix("/v2")
        for verb, pattern, status, act in self.routes(asked, body):
            match = re.fullmatch(pattern.replace("(.+)", "([^/]+)"), path)
            if verb == method and match:
                found = act(*map(unquote, match.groups()))
                if isinstance(found, list):
                    found = page(found, path.rpartition("/")[2], url.path, asked)
                return status, None if status == 204 else found
        raise missing()

    def respond(
        self, method: str, target: str, headers: dict[str, str], body: Document
    ) -> tuple[int, Document | None, dict[str, str]]:
        """Carry a request out, or go wrong as was asked for; gives status, body and headers."""
        self.requests.append((method, target))
        wanted = (method, urlsplit(target).path)
        fault = next((item for item in self.faults if (item.method, item.path) == wanted), None)
        broken: Document = {"id": "server_error", "message": fault.message if fault else ""}
        if fault:
            fault.times -= 1
            if not fault.times:
                self.faults.remove(fault)
            threading.Event().wait(fault.pause)  # tests shorten time.sleep
            if not fault.after:
                return fault.status, broken, fault.headers
        try:
            status, found = self.answer(method, target, {name.lower(): value for name, value in headers.items()}, body)
        except RefusedError as refused:
            status, found = refused.status, refused.body
        except Exception as error:  # noqa: BLE001 - a broken machine is a broken cloud, not a broken connection
            status, found = 500, {**broken, "message": str(error)}
        return (fault.status, broken, fault.headers) if fault else (status, found, {})


LISTS = {"keys": "ssh_keys", "records": "domain_records"}


def page(items: list[Document], name: str, path: str, asked: dict[str, str]) -> Document:
    """One page of a list, with links to the others."""
    per_page, number = min(int(asked.get("per_page", 20)), 200), int(asked.get("page", 1))
    last = max(math.ceil(len(items) / per_page), 1)
    turn = {"next": number + 1, "last": last} if number < last else {}
    pages = {
        key: f"https://double{path}?{urlencode({**asked, 'page': value, 'per_page': per_page})}"
        for key, value in turn.items()
    }
    shown = items[(number - 1) * per_page : number * per_page]
    return {LISTS.get(name, name): shown, "links": {"pages": pages} if pages else {}, "meta": {"total": len(items)}}


@contextmanager
def served(cloud: Cloud) -> Iterator[str]:
    """Answer over HTTP; gives the address that takes the place of the real one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            with cloud.lock:
                status, found, extra = cloud.respond(self.command, self.path, dict(self.headers.items()), body)
                if status == 0:
                    self.close_connection = True
                    return
                text = b"" if found is None else json.dumps(found).encode()
            self.send_response(status)
            limit = {
                "ratelimit-limit": "5000",
                "ratelimit-remaining": "4816",
                "ratelimit-reset": str(int(time.time()) + 3600),
            }
            kind = {"Content-Type": "application/json", "Content-Length": str(len(text))}
            for name, value in {**limit, **extra, **kind}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815 - the names that http.server calls

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
