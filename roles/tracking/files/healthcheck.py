"""Exit 0 when the server can ask its database."""

import urllib.request

with urllib.request.urlopen("http://127.0.0.1:5000/ready", timeout=5) as answer:
    answer.read()
