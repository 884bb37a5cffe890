"""fsck: compare everything that is stored with what the manifests name (verify), and repair it (repair)."""
