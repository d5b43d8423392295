"""What `import sanactl` offers: the commands as functions, with the same options and defaults (docs/python.md).

A function opens what it is given, makes one call into the library, and returns checkpoints or records. It prints
nothing, keeps no journal, and raises the classes of `sanactl.errors`.
"""

import logging

# bitsandbytes says on its first import that an optional kernel is missing, which nothing here uses.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in str(record.msg)
)
