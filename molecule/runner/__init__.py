"""What runs the scenarios: what each costs, which platform it starts from, what a change can touch, and which run beside each other."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What is made once and kept between runs, logs and figures included.
CACHE = ROOT / ".cache" / "molecule"
