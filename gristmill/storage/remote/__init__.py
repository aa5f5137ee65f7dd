"""Files from elsewhere: a folder below a URL (folder), one download (download), holds and downloads ahead (fetch)."""
