"""The prediction API: one MLflow model behind HTTP, typed from its signature."""
