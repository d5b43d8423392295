"""`export`: image records become a dataset in a named format, in shards, with a dataset card."""
