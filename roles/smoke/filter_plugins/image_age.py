"""How old the packages in the images are."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

DAY = 86400


def image_age(images: list[dict[str, Any]], base: str, now: float) -> int:
    """Return the whole days since the base image was built or found current, whichever is later; -1 where it is not on this host.

    `images` are those of the module engine_facts. `make update` leaves the tag `current-DATE` on a base image that Debian has nothing newer for.
    """
    own = [image for image in images if image["tag"] == base]
    if not own:
        return -1
    note = re.compile(re.escape(base.rpartition(":")[0]) + r":current-(\d{4}-\d\d-\d\d)")
    found = [note.fullmatch(image["tag"]) for image in images if image["id"] == own[0]["id"]]
    days = [dt.date.fromisoformat(match[1]) for match in found if match]
    midnights = [dt.datetime.combine(day, dt.time(), dt.UTC).timestamp() for day in days]
    return int((now - max([float(own[0]["created"]), *midnights])) // DAY)


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"image_age": image_age}
