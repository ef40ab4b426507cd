"""From a folder of pictures to the n-th micro batch: scan, captions, buckets, pixels, sampling (without torch)."""
