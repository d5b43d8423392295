"""What `import sanactl` offers: the commands as functions, with the same options and defaults (docs/python.md).

A function opens what it is given, makes one call into the library, and returns checkpoints or records. It prints
nothing, keeps no journal, and raises the classes of `sanactl.errors`.
"""
