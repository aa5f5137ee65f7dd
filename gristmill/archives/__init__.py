"""Archives of crawls and files of lines: records out of damaged files, bodies decoded, members and frames with their places."""
