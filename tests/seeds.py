"""Where random tests begin: anywhere, so that each run searches on, or at `SEED`.

CI sets `SEED`, so that what it says of a change depends on the change alone. A failure names its seed.
"""

import os
import random

SEED = int(os.environ.get("SEED") or random.randrange(10**9))
