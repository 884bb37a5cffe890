"""fsck: compare everything that is stored with what the manifests say (verify), and mend it (repair)."""
