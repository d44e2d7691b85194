"""Wait for the first answer of a URL; note how old the machine was then, and how slow: first_prediction.py URL FILE.

Runs beside pace.py in a copy of the golden platform.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from statistics import mean

from pace import slowness

url, file = sys.argv[1:]
# What runs beside it comes and goes, so the pace is taken all along.
paces = [slowness()]
looked = time.monotonic()
while True:
    with suppress(OSError):
        urllib.request.urlopen(url, timeout=1)
        break
    time.sleep(0.2)
    if time.monotonic() - looked > 2:
        paces.append(slowness())
        looked = time.monotonic()
age = subprocess.run(["ps", "-o", "etimes=", "-p", "1"], capture_output=True, text=True, check=True).stdout
# At once, since somebody waits for the file.
Path(file + ".new").write_text(f"{age.strip()} {max(paces[0], slowness(), mean(paces)):.1f}")
Path(file + ".new").rename(file)
