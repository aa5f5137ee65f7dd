"""Where bytes lie: stores that commit without overwriting, and the reader's bounded cache of remote files."""
