"""The picture: requests per second over connections, and how far ahead of the stock server each peer is."""

from __future__ import annotations

from pathlib import Path

from bench.serving.peer import FLOOR, OURS, PEERS, STOCK
from bench.serving.plan import CONNECTIONS, Point
from bench.serving.samples import LOAD, Samples
from bench.serving.targets import SPEED

COLOURS = {OURS: "#c0392b", FLOOR: "#7f8c8d", STOCK: "#2c3e50"}
OTHERS = ("#2980b9", "#27ae60", "#8e44ad", "#d68910", "#16a085")


def colours() -> dict[str, str]:
    """A colour for each peer."""
    rest = iter(OTHERS)
    return {name: COLOURS.get(name) or next(rest) for name in PEERS}


def draw(samples: Samples, path: Path) -> None:
    """Write the picture."""
    import matplotlib as mpl  # noqa: PLC0415 - a second, for what only the end of a run needs

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 6), width_ratios=(1, 1.25), layout="constrained")
    palette = colours()
    for name, peer in PEERS.items():
        found = {c: samples.spread(LOAD, Point("iris", 1, c).key, name, "rate") for c in CONNECTIONS}
        line = [(c, rate) for c, rate in found.items() if rate is not None]
        if not line:
            continue
        left.errorbar(
            [c for c, _ in line],
            [rate.median for _, rate in line],
            yerr=[
                [rate.median - rate.least for _, rate in line],
                [rate.most - rate.median for _, rate in line],
            ],
            label=peer.title.replace("`", ""),
            color=palette[name],
            marker="o",
            markersize=4,
            capsize=2,
            linewidth=2.6 if name == OURS else 1.3,
            linestyle=":" if name == FLOOR else "-",
        )
    left.set(xscale="log", yscale="log", xlabel="connections", ylabel="requests per second, one core")
    left.set_xticks(CONNECTIONS, [str(c) for c in CONNECTIONS])
    left.set_title("iris, one row")
    left.grid(visible=True, which="both", alpha=0.2)
    points = [target.point for target in SPEED]
    shown = [name for name in PEERS if name not in {STOCK, FLOOR}]
    step = 0.8 / len(shown)
    for number, name in enumerate(shown):
        bars = [(place, samples.ratio(point.key, name, STOCK)) for place, point in enumerate(points)]
        there = [(place, ratio.median) for place, ratio in bars if ratio is not None]
        right.barh(
            [place - 0.4 + step * (number + 0.5) for place, _ in there],
            [ratio for _, ratio in there],
            height=step,
            color=palette[name],
        )
    for place, target in enumerate(SPEED):
        label = "to reach" if place == 0 else None
        right.plot([target.times] * 2, [place - 0.45, place + 0.45], color="black", linewidth=1.5, label=label)
    right.set_yticks(range(len(points)), [point.title for point in points])
    right.invert_yaxis()
    right.set(xscale="log", xlabel="times the requests per second of mlflow models serve")
    right.axvline(1, color=palette[STOCK], linewidth=0.8)
    right.set_title("against the stock server")
    right.grid(visible=True, axis="x", alpha=0.2)
    right.legend(fontsize=8)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
