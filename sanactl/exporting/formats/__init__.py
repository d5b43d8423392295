"""The formats that `export --to` can name, a file each, and their registry."""
