"""The training tasks: one module each, all with the interface of tasks.base.Task."""

from training.tasks.base import EpochCallback, Estimator, Fitted, Task
from training.tasks.digits import DigitsTask
from training.tasks.iris import IrisTask

__all__ = ["DigitsTask", "EpochCallback", "Estimator", "Fitted", "IrisTask", "Task"]
