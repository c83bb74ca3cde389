"""Files that are written whole or not at all, YAML, and copies of what lies at a URI."""
