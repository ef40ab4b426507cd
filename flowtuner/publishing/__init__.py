"""What all destinations share: what is published, the manifest that proves it, and the order of the writes."""
