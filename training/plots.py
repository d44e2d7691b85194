"""The confusion matrix picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from training.datasets import Labels


def confusion_figure(labels: Labels, predictions: NDArray[np.int64], class_names: Sequence[str], title: str) -> Figure:
    """Return a figure with true classes down, predicted classes across, and counts in the cells.

    ``labels`` and ``predictions`` have shape (n,) and hold class numbers. Uses no pyplot, hence needs no display.
    """
    classes = list(range(len(class_names)))
    counts: NDArray[np.int64] = confusion_matrix(labels, predictions, labels=classes)
    side = 3.0 + 0.45 * len(classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues")
    axes.set_xticks(classes, class_names)
    axes.set_yticks(classes, class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    dark = counts.max() / 2
    for row in classes:
        for column in classes:
            count = int(counts[row, column])
            axes.text(column, row, str(count), ha="center", va="center", color="white" if count > dark else "black")
    return figure
