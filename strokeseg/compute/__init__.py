"""Ray: sessions, checks before joining a cluster, resources, tasks."""
