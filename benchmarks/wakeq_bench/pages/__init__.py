"""Results as pages and pictures for people to read; needs the extra `wakeq[bench]`."""
