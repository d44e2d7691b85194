"""Start the prediction API: ``python -m serving``."""

import gc
import sys

# Before the imports, which make hundreds of thousands of objects: looking through them again and again takes a tenth of
# the start. It stays so: what a request makes is gone when it is answered.
gc.set_threshold(20_000, 20, 50)

from serving.server import main  # noqa: E402 - as above

if __name__ == "__main__":
    sys.exit(main())
