"""Train, register, check and promote the example models of the platform.

``python -m training iris`` and ``python -m training digits`` are the two commands, ``docs/training.md`` is their
manual. The package speaks plain MLflow, so it runs against any ``MLFLOW_TRACKING_URI``.
"""
