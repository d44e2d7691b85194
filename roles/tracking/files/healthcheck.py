"""Exit 0 when the server answers a question that it must ask its database."""

import urllib.request

request = urllib.request.Request(
    "http://127.0.0.1:5000/api/2.0/mlflow/experiments/search",
    data=b'{"max_results": 1}',
    headers={"Content-Type": "application/json"},
)
with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - a constant address
    answer.read()
