"""Start the prediction API: ``python -m serving``."""

import sys

from serving.server import main

if __name__ == "__main__":
    sys.exit(main())
